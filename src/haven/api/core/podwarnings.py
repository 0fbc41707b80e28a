"""placeholder"""

from haven.api.core import v1


def pod_warnings(pod: v1.Pod) -> list[str]:
    return []
