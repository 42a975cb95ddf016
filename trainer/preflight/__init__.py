"""The TPU answer before the TPU bill: the project's own steps, traced and judged on a machine that has no TPU."""
