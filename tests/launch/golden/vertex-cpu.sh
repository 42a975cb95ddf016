cat > job.json <<'EOF'
{
  "workerPoolSpecs": [
    {
      "machineSpec": {
        "machineType": "n2-standard-8"
      },
      "containerSpec": {
        "imageUri": "us-central1-docker.pkg.dev/project-1/hub-trainer/trainer-gpu:abc123",
        "command": [
          "python",
          "-m",
          "trainer.task"
        ],
        "args": [
          "--run_dir=gs://bucket/runs/flowers"
        ],
        "env": [
          {
            "name": "PYTHONUNBUFFERED",
            "value": "1"
          }
        ]
      },
      "replicaCount": "1"
    }
  ],
  "scheduling": {
    "strategy": "STANDARD",
    "timeout": "1800s"
  },
  "baseOutputDirectory": {
    "outputUriPrefix": "gs://bucket/runs/flowers"
  }
}
EOF
gcloud ai custom-jobs create \
    --project=project-1 \
    --region=us-central1 \
    --display-name=flowers-1 \
    --labels=created-by=hub-trainer,hub-trainer-job=flowers-1,hub-trainer-submission=s0123456789abcdef \
    --config=job.json
