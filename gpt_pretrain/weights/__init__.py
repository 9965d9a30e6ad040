"""GPT-2 weights in and out. The only place that knows other programs' names for our parameters."""
