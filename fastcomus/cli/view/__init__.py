"""A page on this machine that shows a run and saves what a person says about it (extra `app`)."""
