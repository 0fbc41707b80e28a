"""What guards a server beyond its own objects: whom it believes and who decides, by files or flags, followed."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from haven.apiserver.authentication.configuration import IssuerConfig, mapping_of_flags, parse_authentication
from haven.apiserver.authentication.distributedclaims import ClaimSources
from haven.apiserver.authentication.interface import RemoteTokenAuthenticator
from haven.apiserver.authentication.issuerkeys import IssuerKeys, https_ask, https_fetch
from haven.apiserver.authentication.issuers import Issuer, IssuerTokens
from haven.apiserver.authentication.jwt import ALGORITHMS
from haven.apiserver.authentication.statictokens import MalformedTokenFile, parse_token_file
from haven.apiserver.authentication.tokenwebhook import WebhookTokens
from haven.apiserver.authentication.union import RequestAuthenticator
from haven.apiserver.authorization.abac import ABAC, AlwaysAllow, AlwaysDeny, parse_policies
from haven.apiserver.authorization.configuration import AuthorizerConfig, parse_authorization
from haven.apiserver.authorization.interface import Authorizer
from haven.apiserver.authorization.union import AlwaysAllowGroups, AuthorizerUnion
from haven.apiserver.authorization.webhook import WebhookAuthorizer
from haven.apiserver.configfiles import ConfigError, FollowedFile
from haven.apiserver.expressions import CelEngine
from haven.apiserver.request import UserInfo
from haven.apiserver.settings import SecuritySettings
from haven.apiserver.webhooks.caller import WebhookCaller
from haven.apiserver.webhooks.retrying import retrying
from haven.apiserver.webhooks.target import Target, tls_context
from haven.client.connection import from_kubeconfig
from haven.clock import Clock

__all__ = ["Guard", "webhook_target"]

RELOAD_SECONDS = 60.0
WEBHOOK_SECONDS = 30.0


def webhook_target(path: str) -> Target:
    """Return where the kubeconfig of a webhook leads to; raise ConfigError."""
    try:
        return Target.of_connection(from_kubeconfig(Path(path)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


_OIDC_TOGETHER = "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"


class Guard:
    """Who is believed and who may what, beyond what stored objects say; follows its files while the server runs.

    `tokens` are asked behind those that the server knows itself; `authorizer` is the whole chain.
    """

    def __init__(
        self,
        settings: SecuritySettings,
        caller: WebhookCaller,
        clock: Clock,
        chance: random.Random,
        *,
        node: Authorizer,
        rbac: Authorizer,
        audiences: Sequence[str],
    ) -> None:
        self._settings = settings
        self._caller = caller
        self._clock = clock
        self._chance = chance
        self._own: dict[str, Authorizer] = {"Node": node, "RBAC": rbac}
        self._audiences = tuple(audiences)
        self._engine: CelEngine | None = None
        self.followed: dict[str, FollowedFile] = {}
        self.issuers = IssuerTokens((), audiences, clock)
        self.tokens: list[RemoteTokenAuthenticator] = [self.issuers]
        self.authorizer = AuthorizerUnion(())
        self.identify: RequestAuthenticator | None = None
        self._anonymous: tuple[bool, Collection[str] | None] = (settings.anonymous_auth is not False, None)
        self._load()

    def attach(self, identify: RequestAuthenticator) -> None:
        """Let this authenticator pass requests without credentials, as is configured."""
        self.identify = identify
        identify.allow_anonymous(*self._anonymous)

    @property
    def static_tokens(self) -> Mapping[str, UserInfo]:
        """The users of the token file."""
        path = self._settings.token_auth_file
        if not path:
            return {}
        try:
            return parse_token_file(Path(path).read_text(encoding="utf-8"))
        except (OSError, MalformedTokenFile) as error:
            raise ConfigError(f"{path}: {error}") from None

    def engine(self) -> CelEngine:
        """Return what compiles expressions."""
        if self._engine is None:
            self._engine = CelEngine()
        return self._engine

    def _load(self) -> None:
        settings = self._settings
        if settings.authentication_config:
            if settings.oidc_issuer_url or settings.oidc_client_id:
                raise ConfigError("authentication-config file and oidc-* flags are mutually exclusive")
            self._follow("authentication", settings.authentication_config, self._apply_authentication)
        elif not settings.oidc_issuer_url and (
            settings.oidc_client_id
            or settings.oidc_groups_claim
            or settings.oidc_required_claim
            or settings.oidc_ca_file
        ):
            raise ConfigError(_OIDC_TOGETHER)
        elif settings.oidc_issuer_url:
            self.issuers.replace([self._issuer_of_flags()])
        if settings.authentication_token_webhook_config_file:
            self.tokens.append(self._token_webhook())
        if settings.authorization_config:
            self._follow("authorization", settings.authorization_config, self._apply_authorization)
        else:
            modes = _checked_modes(settings)
            names = [(mode, "default" if mode == "Webhook" else mode.lower()) for mode in modes]
            self._set_authorizers([self._by_mode(mode) for mode in modes], names)
            if "AlwaysAllow" in settings.authorization_mode and settings.anonymous_auth is None:
                self._anonymous = (False, None)  # Else everybody who reaches the port might do everything.

    def _follow(self, name: str, path: str, apply: Callable[[bytes], None]) -> None:
        file = FollowedFile(Path(path), apply, clock=self._clock, every_seconds=RELOAD_SECONDS)
        file.load()
        self.followed[name] = file

    def _apply_authentication(self, data: bytes) -> None:
        found = parse_authentication(data, self.engine(), refused_issuers=self._audiences[:1])
        if found.anonymous is not None and self._settings.anonymous_auth is not None:
            raise ConfigError(
                "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in"
                " authentication configuration file"
            )
        self.issuers.replace([self._issuer(one) for one in found.issuers])
        if found.anonymous is not None:
            self._anonymous = (found.anonymous, found.anonymous_paths)
        if self.identify is not None:
            self.identify.allow_anonymous(*self._anonymous)

    def _issuer(self, config: IssuerConfig, algorithms: Sequence[str] = ALGORITHMS) -> Issuer:
        try:
            tls = tls_context(ca=config.authority_pem.encode(), insecure=False)
        except (ValueError, ssl.SSLError) as error:
            raise ConfigError(f"the authority of {config.url} cannot be used: {error}") from None
        fetch = https_fetch(tls)
        keys = IssuerKeys(config.url, config.discovery_url, fetch, self._clock)
        sources = None
        if config.mapping.groups.claim:
            sources = ClaimSources(
                config.mapping.groups.claim,
                config.audiences,
                algorithms,
                https_ask(tls),
                lambda issuer: IssuerKeys(issuer, "", fetch, self._clock),
                self._clock,
            )
        return Issuer(config.url, config.audiences, config.mapping, keys, tuple(algorithms), sources)

    def _issuer_of_flags(self) -> Issuer:
        settings = self._settings
        if not settings.oidc_client_id:
            raise ConfigError(_OIDC_TOGETHER)
        if not settings.oidc_issuer_url.startswith("https://"):
            raise ConfigError(f'oidc-issuer-url: "{settings.oidc_issuer_url}": URL scheme must be https')
        unknown = [one for one in settings.oidc_signing_algs if one not in ALGORITHMS]
        if unknown:
            raise ConfigError(f"oidc: unsupported signing alg: {', '.join(unknown)}")
        try:
            authority = Path(settings.oidc_ca_file).read_text(encoding="utf-8") if settings.oidc_ca_file else ""
        except OSError as error:
            raise ConfigError(f"oidc-ca-file: {error}") from None
        mapping = mapping_of_flags(settings)
        config = IssuerConfig(settings.oidc_issuer_url, "", authority, (settings.oidc_client_id,), mapping)
        return self._issuer(config, settings.oidc_signing_algs)

    def _token_webhook(self) -> WebhookTokens:
        settings = self._settings
        target = webhook_target(settings.authentication_token_webhook_config_file)
        post = retrying(self._caller, target, self._clock, self._chance, timeout_seconds=WEBHOOK_SECONDS)
        return WebhookTokens(
            post,
            self._clock,
            version=settings.authentication_token_webhook_version,
            ttl_seconds=settings.authentication_token_webhook_cache_ttl_seconds,
            implicit_audiences=self._audiences,
        )

    def _apply_authorization(self, data: bytes) -> None:
        configs = parse_authorization(data, self.engine())
        names = [(config.type, config.name) for config in configs]
        self._set_authorizers([self._by_config(config) for config in configs], names)

    def _set_authorizers(self, authorizers: Sequence[Authorizer], names: Sequence[tuple[str, str]]) -> None:
        self.authorizer.replace([AlwaysAllowGroups(), *authorizers], [None, *names])

    def _by_config(self, config: AuthorizerConfig) -> Authorizer:
        hook = config.webhook
        if hook is None:
            return self._by_mode(config.type)
        if not hook.kubeconfig:
            raise ConfigError(f"authorizer {config.name}: InClusterConfig needs a Pod, which this server is not")
        target = webhook_target(hook.kubeconfig)
        return WebhookAuthorizer(
            retrying(self._caller, target, self._clock, self._chance, timeout_seconds=hook.timeout_seconds),
            self._clock,
            name=config.name,
            version=hook.version,
            authorized_ttl_seconds=hook.authorized_ttl_seconds,
            unauthorized_ttl_seconds=hook.unauthorized_ttl_seconds,
            failure_denies=hook.failure_denies,
            match_conditions=hook.match_conditions,
        )

    def _by_mode(self, mode: str) -> Authorizer:
        settings = self._settings
        if mode in self._own:
            return self._own[mode]
        if mode == "AlwaysAllow":
            return AlwaysAllow()
        if mode == "AlwaysDeny":
            return AlwaysDeny()
        if mode == "ABAC":
            if not settings.authorization_policy_file:
                raise ConfigError("authorization-mode ABAC's authorization policy file not passed")
            try:
                return ABAC(parse_policies(Path(settings.authorization_policy_file).read_text(encoding="utf-8")))
            except OSError as error:
                raise ConfigError(f"authorization-policy-file: {error}") from None
        if mode == "Webhook":
            if not settings.authorization_webhook_config_file:
                raise ConfigError("authorization-mode Webhook's authorization config file not passed")
            target = webhook_target(settings.authorization_webhook_config_file)
            return WebhookAuthorizer(
                retrying(self._caller, target, self._clock, self._chance, timeout_seconds=WEBHOOK_SECONDS),
                self._clock,
                version=settings.authorization_webhook_version,
                authorized_ttl_seconds=settings.authorization_webhook_cache_authorized_ttl_seconds,
                unauthorized_ttl_seconds=settings.authorization_webhook_cache_unauthorized_ttl_seconds,
            )
        raise ConfigError(f"authorization-mode {mode!r} is not a valid mode")


def _checked_modes(settings: SecuritySettings) -> Sequence[str]:
    """Return the modes of the flag; raise ConfigError."""
    modes = settings.authorization_mode
    if not modes:
        raise ConfigError("at least one authorization-mode must be passed")
    if len(set(modes)) < len(modes):
        raise ConfigError(f"authorization-mode {list(modes)} has mode specified more than once")
    for mode, value, flag in (
        ("ABAC", settings.authorization_policy_file, "authorization-policy-file"),
        ("Webhook", settings.authorization_webhook_config_file, "authorization-webhook-config-file"),
    ):
        if value and mode not in modes:
            raise ConfigError(f"cannot specify --{flag} without mode {mode}")
    return modes
