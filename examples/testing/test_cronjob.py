"""A night of a CronJob, without the night."""

from datetime import UTC, datetime

import pytest

from haven.testing import Cluster

BACKUP = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup}
spec:
  schedule: "30 2 * * *"
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: 0
      ttlSecondsAfterFinished: 3600
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: example.org/backup}]
"""


@pytest.mark.haven(start_seconds=datetime(2030, 6, 1, 22, 0, tzinfo=UTC).timestamp())
def test_the_backup_runs_at_night_and_cleans_up(haven_cluster: Cluster) -> None:
    haven_cluster.behave(owner="Job", run_seconds=600, log="all saved\n")
    haven_cluster.apply(BACKUP)

    haven_cluster.clock.advance_to(datetime(2030, 6, 2, 2, 35, tzinfo=UTC))
    (job,) = haven_cluster.list("jobs")
    assert job["status"]["active"] == 1
    haven_cluster.clock.advance(minutes=10)
    haven_cluster.wait_for(job, "Complete")

    haven_cluster.clock.advance(hours=2)
    assert haven_cluster.list("jobs") == []
    assert haven_cluster.get("cronjob", "backup")["status"]["lastScheduleTime"] == "2030-06-02T02:30:00Z"
