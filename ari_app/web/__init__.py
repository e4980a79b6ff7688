"""What an operator reaches over HTTP: health, metrics, the API, the console."""
