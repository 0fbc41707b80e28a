"""What answers of admission webhooks mean, in whatever form they come."""

from __future__ import annotations

import pytest

from haven.apiserver.admission.webhooks.review import InvalidReview, read_review


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
