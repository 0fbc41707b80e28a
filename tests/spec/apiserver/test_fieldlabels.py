"""Field selectors name the fields that their kind knows at the version asked."""

from __future__ import annotations

import pytest

from haven.api import scheme
from haven.apimachinery.selectors import SelectorError, parse_fields
from haven.apiserver.registry.fieldlabels import convert_field_labels


@pytest.mark.parametrize(
    ("where", "text", "stored"),
    [
        (("", "v1", "pods"), "spec.host=n", "spec.nodeName=n"),
        (("", "v1", "pods"), "metadata.name=a,status.podIP=", "metadata.name=a,status.podIP="),
        (("events.k8s.io", "v1", "events"), "regarding.name=p", "involvedObject.name=p"),
        (("apps", "v1", "deployments"), "metadata.namespace!=x", "metadata.namespace!=x"),
    ],
)
def test_a_field_is_called_as_the_stored_version_calls_it(where: tuple[str, str, str], text: str, stored: str) -> None:
    assert str(convert_field_labels(scheme.find(*where), parse_fields(text))) == stored


@pytest.mark.parametrize(
    ("where", "field", "complaint"),
    [
        (("", "v1", "pods"), "spec.hostname", "field label not supported: spec.hostname"),
        (("", "v1", "nodes"), "spec.podCIDR", "field label not supported: spec.podCIDR"),
        (("", "v1", "namespaces"), "name", "field label not supported: name"),
        (
            ("apps", "v1", "replicasets"),
            "status.replicas",
            '"status.replicas" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        (("batch", "v1", "jobs"), "spec.x", 'field label "spec.x" not supported for Job'),
        (
            ("resource.k8s.io", "v1", "resourceslices"),
            "spec.pool.name",
            "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.pool.name",
        ),
    ],
)
def test_other_fields_are_refused_in_upstreams_words(where: tuple[str, str, str], field: str, complaint: str) -> None:
    with pytest.raises(SelectorError) as caught:
        convert_field_labels(scheme.find(*where), parse_fields(f"{field}=x"))

    assert str(caught.value) == complaint
