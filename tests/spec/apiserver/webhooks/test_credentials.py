"""Who the server is to a webhook follows from the webhook's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from haven.apiserver.admission.webhooks.credentials import Credentials, parse_credentials
from haven.apiserver.configfiles import ConfigError
from haven.apiserver.webhooks.target import Target

KUBECONFIG = """
apiVersion: v1
kind: Config
users:
- {name: "hook.example.com:8443", user: {token: exact}}
- {name: hook.example.com, user: {token: host}}
- {name: "*.svc", user: {token: service}}
- {name: "*", user: {token: anyone}}
"""


def credentials(tmp_path: Path, text: str = KUBECONFIG) -> Credentials:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(text)
    found = parse_credentials(
        b"apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\n"
        + f"kubeConfigFile: {kubeconfig}".encode()
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("https://hook.example.com:8443/check", "exact"),
        ("https://hook.example.com/check", "host"),
        ("https://web.shop.svc:443/", "service"),
        ("https://elsewhere.example.org", "anyone"),
    ],
)
def test_the_closest_name_wins(tmp_path: Path, url: str, token: str) -> None:
    target = credentials(tmp_path).complete(Target(url, ca=b"authority"))

    assert target.headers == (("Authorization", f"Bearer {token}"),)
    assert (target.url, target.ca) == (url, b"authority")


def test_without_a_fitting_user_the_current_context_counts_or_nobody(tmp_path: Path) -> None:
    text = "users: [{name: me, user: {token: mine}}]\ncontexts: [{name: c, context: {user: me}}]\ncurrent-context: c"

    assert credentials(tmp_path, text).complete(Target("https://a")).headers == (("Authorization", "Bearer mine"),)
    assert credentials(tmp_path, "users: []").complete(Target("https://a")) == Target("https://a")


def test_a_user_that_cannot_be_used_is_a_fault_of_the_call(tmp_path: Path) -> None:
    text = "users: [{name: '*', user: {client-certificate-data: AAAA}}]"

    with pytest.raises(ValueError, match="certificate"):
        credentials(tmp_path, text).complete(Target("https://a"))


def test_the_file_of_users_has_a_whole_path() -> None:
    document = b"apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nkubeConfigFile: here"

    with pytest.raises(ConfigError, match='kubeConfigFile: Invalid value: "here": must be an absolute file path'):
        parse_credentials(document)
    assert parse_credentials(None) is None
