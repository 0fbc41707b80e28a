"""Odd requests that two servers once answered differently."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import Api

TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
PODS = "/api/v1/namespaces/default/pods"
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


@pytest.mark.parametrize("other", ["labelSelector=(", "fieldSelector=a%5Cx"])
@pytest.mark.parametrize("number", ["limit=1.5", "timeoutSeconds=1_0", "limit=%201"])
async def test_numbers_of_a_list_are_read_before_its_selectors(api: Api, other: str, number: str) -> None:
    status, answer = await api.send("GET", f"{PODS}?{other}&{number}")

    assert (status, answer["message"].partition(":")[0]) == (400, "strconv.ParseInt")


@pytest.mark.parametrize("text", ["", "x", "1_0", "99999999999999999999"])
async def test_a_daemon_set_counts_its_templates_in_a_number(api: Api, text: str) -> None:
    body = {
        "metadata": {"name": "d", "annotations": {"deprecated.daemonset.template.generation": text}},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
    }

    status, answer = await api.send("POST", "/apis/apps/v1/namespaces/default/daemonsets", body)

    words = f'DaemonSet in version "v1" cannot be handled as a DaemonSet: strconv.ParseInt: parsing "{text}": '
    assert (status, answer["message"].startswith(words)) == (400, True), answer


async def test_a_class_of_service_that_comes_with_a_new_pod_stays(api: Api) -> None:
    await api.send("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    pod: dict[str, Any] = {"metadata": {"name": "p"}, "spec": TEMPLATE["spec"], "status": {"qosClass": "Guaranteed"}}

    _, created = await api.send("POST", PODS, pod)

    assert created["status"]["qosClass"] == "Guaranteed"


@pytest.mark.parametrize(("plural", "rows"), [("limitranges", None), ("configmaps", [])])
async def test_an_empty_table_without_columns_of_its_own_has_no_rows_at_all(api: Api, plural: str, rows: Any) -> None:
    _, table = await api.send("GET", f"/api/v1/namespaces/nowhere/{plural}", accept=TABLE)

    assert table["rows"] == rows


async def test_another_uid_is_refused_in_the_name_of_the_group_that_was_asked(api: Api) -> None:
    events = "/apis/events.k8s.io/v1/namespaces/default/events"
    event = {
        "metadata": {"name": "e"}, "reason": "r", "action": "a", "type": "Normal", "reportingController": "a.b/c",
        "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"namespace": "default"},
    }  # fmt: skip
    _, created = await api.send("POST", events, event)

    status, answer = await api.send("PUT", f"{events}/e", {**event, "metadata": {"name": "e", "uid": "other"}})

    assert created["metadata"]["uid"]
    assert (status, answer["details"]["group"]) == (409, "events.k8s.io")
    assert answer["message"].startswith('Operation cannot be fulfilled on events.events.k8s.io "e": StorageError')


async def test_an_address_that_is_none_is_complained_about_twice(api: Api) -> None:
    body = {"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "x"}]}]}

    _, answer = await api.send("POST", "/api/v1/namespaces/default/endpoints", body)

    assert [cause["message"] for cause in answer["details"]["causes"]] == [
        'Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
        'Invalid value: "x": must be a valid IP address',
    ]


async def test_amounts_whose_thousandths_exceed_64_bits_are_not_whole(api: Api) -> None:
    limits = {"spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"example.com/x": "1Ei"}}}]}}
    template = {"metadata": {"name": "t"}, "template": limits}

    status, answer = await api.send("POST", "/api/v1/namespaces/default/podtemplates", template)

    assert (status, 'Invalid value: "1Ei": must be an integer' in answer["message"]) == (422, True)


async def test_a_warning_about_an_expression_says_where_in_a_jsonpath(api: Api) -> None:
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["x"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}]}
    await api.send("POST", policies, {"metadata": {"name": "p"}, "spec": spec})
    found = [{"fieldRef": "*", "warning": "w"}, {"fieldRef": "spec.validations[0].expression", "warning": "w"}]

    patch = {"status": {"typeChecking": {"expressionWarnings": found}}}
    status, answer = await api.send("PATCH", f"{policies}/p/status", patch, content_type="application/merge-patch+json")

    assert (status, [cause["message"] for cause in answer["details"]["causes"]]) == (
        422,
        ["Invalid value: \"*\": invalid JSONPath: unrecognized character in action: U+002A '*'"],
    )
