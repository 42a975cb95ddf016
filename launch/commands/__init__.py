"""The commands of `python -m launch`: each a module with NAME, SUMMARY, `add_options` and `execute`."""
