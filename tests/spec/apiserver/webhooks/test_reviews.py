"""What answers of admission webhooks mean, in whatever form they come."""

from __future__ import annotations

import pytest

from haven.apiserver.admission.webhooks.review import InvalidReview, read_review
from haven.apiserver.webhooks.answers import NoAnswer, conversion_review


def test_an_answer_in_yaml_is_understood_whatever_it_says_it_is() -> None:
    answer = b"apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\nresponse: {uid: u, allowed: true}\n"

    assert read_review(answer, version="v1", uid="u", mutating=False).allowed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"null", "webhook response was absent"),
        (
            b'{"response":{"uid":5}}',
            "json: cannot unmarshal number into Go struct field AdmissionResponse.response.uid of type types.UID",
        ),
        (
            b"<html>",
            "couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type struct "
            '{ APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }',
        ),
    ],
)
def test_an_answer_that_is_no_review_says_how(answer: bytes, words: str) -> None:
    with pytest.raises(InvalidReview) as refused:
        read_review(answer, version="v1", uid="u", mutating=False)

    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"{nonsense", "couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of"),
        (b"[]", "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type"),
        (
            b'{"kind":"AdmissionReview","apiVersion":"apiextensions.k8s.io/v1"}',
            'no kind "AdmissionReview" is registered for version "apiextensions.k8s.io/v1" in scheme',
        ),
        (
            b'{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1beta1"}',
            "converting (v1beta1.ConversionReview) to (v1.ConversionReview): unknown conversion",
        ),
        (
            b'{"kind":"Status","apiVersion":"v1"}',
            "converting (v1.Status) to (v1.ConversionReview): unknown conversion",
        ),
        (
            b'{"response":"x"}',
            "json: cannot unmarshal string into Go struct field ConversionReview.response of type",
        ),
        (
            b'{"response":{"result":"Success"}}',
            "json: cannot unmarshal string into Go struct field ConversionResponse.response.result of type v1.Status",
        ),
    ],
)
def test_an_answer_that_is_no_conversion_review_says_how(answer: bytes, words: str) -> None:
    with pytest.raises(NoAnswer) as refused:
        conversion_review(answer, "apiextensions.k8s.io/v1")

    assert str(refused.value).startswith(words)


def test_a_conversion_review_may_be_yaml_and_leave_its_kind_unsaid() -> None:
    assert conversion_review(b"response: {uid: u}\n", "apiextensions.k8s.io/v1") == {"response": {"uid": "u"}}
