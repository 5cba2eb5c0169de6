"""Finding, naming and decoding images, wherever they lie."""
