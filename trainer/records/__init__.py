"""What a run writes while it runs: the terminal, `metrics.jsonl`, TensorBoard, `status.json`, where the time went."""
