python -c "import shutil, launch.services.tpu_startup as module; shutil.copy(module.__file__, 'tpu_startup.py')"
cat > hub-trainer.json <<'EOF'
{
 "job": "flowers-1",
 "submission": "s0123456789abcdef",
 "project": "project-1",
 "queued_resource": "projects/project-1/locations/us-west4-a/queuedResources/flowers-1",
 "hosts": 4,
 "image": "us-west4-docker.pkg.dev/project-1/hub-trainer/trainer-tpu:abc123",
 "command": [
  "python",
  "-m",
  "trainer.task",
  "--strategy=tpu",
  "--data=folder:gs://bucket/photos of 'flowers', all",
  "--run_dir=gs://bucket/runs/flowers"
 ],
 "server_command": [
  "python",
  "-m",
  "trainer.tpu_server",
  "--port=8470"
 ],
 "server_port": 8470,
 "environment": {
  "PYTHONUNBUFFERED": "1"
 },
 "results": "gs://bucket/runs/flowers/launch/flowers-1",
 "max_run_seconds": 2700,
 "stop_seconds": 25.0,
 "delete_when_done": false
}
EOF
gcloud compute tpus queued-resources create flowers-1 \
    --project=project-1 \
    --zone=us-west4-a \
    --node-id=flowers-1 \
    --accelerator-type=v5litepod-16 \
    --runtime-version=v2-alpha-tpuv5-lite \
    --network=default \
    --service-account=trainer@project-1.iam.gserviceaccount.com \
    --spot \
    --valid-until-duration=9000s \
    --labels=team=vision,created-by=hub-trainer,hub-trainer-job=flowers-1,hub-trainer-submission=s0123456789abcdef \
    --metadata-from-file=startup-script=tpu_startup.py,hub-trainer=hub-trainer.json \
    --async
