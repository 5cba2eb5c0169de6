"""Where the work on images is done: in this process, on several devices, or on Ray."""
