"""`python -m ari_app check`: what stands between this installation and the next call, one line each."""
