"""kr8s, asynchronously: a Job whose Pod ends as the test says."""

import asyncio

from kr8s.asyncio.objects import Job

from haven.testing import Cluster

CONTAINER = {"name": "main", "image": "example.org/import"}
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "import"},
    "spec": {
        "backoffLimit": 2,
        "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.org/import"}]}
        },
    },
}


async def test_a_job_succeeds_at_the_second_try(haven_cluster: Cluster) -> None:
    api = await haven_cluster.aio.client("kr8s.asyncio")
    job = await Job(JOB, api=api)
    await job.create()
    await haven_cluster.aio.wait_for("job/import", {"status": {"active": 1}})

    (first,) = haven_cluster.pods("job-name=import")
    await haven_cluster.aio.call(first.log, "no such file")
    await haven_cluster.aio.call(first.fail, exit_code=2)
    await haven_cluster.aio.advance(minutes=1)  # A Job waits ten seconds before it tries again.
    (second,) = [pod for pod in haven_cluster.pods("job-name=import") if pod.name != first.name]
    await haven_cluster.aio.call(second.succeed)

    async with asyncio.timeout(120):
        await job.wait("condition=Complete")
    assert job.status.failed == 1
