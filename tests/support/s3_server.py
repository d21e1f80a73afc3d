"""An S3 mock on loopback."""

import os
import socket
import uuid
from contextlib import contextmanager

os.environ["NO_PROXY"] = "127.0.0.1,localhost"


@contextmanager
def s3_server():
    """Yield storage options for a server that lives as long as the block, and the name of a bucket in it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "test", "secret": "test", "endpoint_url": f"http://{host}:{port}"}
    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint_url"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    client.close()
    try:
        yield bucket, options
    finally:
        server.stop()


def closed_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
