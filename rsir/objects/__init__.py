"""Object storage: addresses such as ``s3://bucket/run``, whole objects, copies on this machine, and claims on a run."""
