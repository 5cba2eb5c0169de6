"""What a GPU does with every part of fastcomus, beside what it could do: `python -m bench.gpu`."""
