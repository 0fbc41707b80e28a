"""What is wrong with a name: DNS labels and subdomains, qualified names, ports, percentages, header and key names.

Each `…_errors` function returns the complaints in upstream's words and order, and an empty tuple for a good name.
Names repeat, so the answers are kept. Two families exist upstream and differ in one word: older checks count
"characters", newer ones "bytes".
Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and the behaviour of
k8s.io/apimachinery/pkg/util/validation and pkg/api/validate/content.
"""

from __future__ import annotations

import re
from functools import lru_cache

from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required

__all__ = [
    "LABEL_MAX",
    "SUBDOMAIN_MAX",
    "byte_length",
    "c_identifier_errors",
    "config_map_key_errors",
    "decimal_integer_errors",
    "declared_subdomain_name",
    "dns1035_label_errors",
    "dns1123_label_errors",
    "dns1123_subdomain_caseless_errors",
    "dns1123_subdomain_errors",
    "dns1123_subdomain_underscore_errors",
    "dns_label_name",
    "dns_subdomain_name",
    "env_var_name_errors",
    "fully_qualified_domain_name_errors",
    "fully_qualified_name_errors",
    "group_id_errors",
    "http_header_name_errors",
    "label_value_errors",
    "max_length_text",
    "path_segment_name",
    "percent_errors",
    "port_name_errors",
    "port_number_errors",
    "qualified_name_errors",
    "range_errors",
    "regex_text",
    "relaxed_env_var_name_errors",
    "service_name",
    "user_id_errors",
    "validate_domain_prefixed_key",
    "validate_domain_prefixed_path",
    "validate_fully_qualified_domain_name",
    "validate_fully_qualified_name",
    "wildcard_dns1123_subdomain_errors",
]

Complaints = tuple[str, ...]

LABEL_MAX = 63
SUBDOMAIN_MAX = 253
_KEPT = 16384

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_UNDERSCORE = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_UNDERSCORE = rf"{_LABEL_UNDERSCORE}(\.{_LABEL_UNDERSCORE})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_ENV_VAR = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"

_label = re.compile(_LABEL).fullmatch
_subdomain = re.compile(_SUBDOMAIN).fullmatch
_subdomain_caseless = re.compile(_SUBDOMAIN, re.IGNORECASE | re.ASCII).fullmatch
_subdomain_underscore = re.compile(_SUBDOMAIN_UNDERSCORE).fullmatch
_label_1035 = re.compile(_LABEL_1035).fullmatch
_wildcard = re.compile(_WILDCARD).fullmatch
_qualified = re.compile(_QUALIFIED).fullmatch
_label_value = re.compile(_LABEL_VALUE).fullmatch
_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_env_var = re.compile(_ENV_VAR).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_header = re.compile(_HEADER).fullmatch
_percent = re.compile(_PERCENT).fullmatch
_port_charset = re.compile("[-a-z0-9]+").fullmatch
_letter = re.compile("[a-z]").search
_decimal = re.compile("0|-?[1-9][0-9]*").fullmatch
_http_path = re.compile(_HTTP_PATH).fullmatch

_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_QUALIFIED_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)


def byte_length(text: str) -> int:
    """Return the text's length as Go counts it, in UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def regex_text(words: str, pattern: str, *examples: str) -> str:
    """Say what a text must look like, with examples and the pattern."""
    if not examples:
        return f"{words} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {shown}regex used for validation is '{pattern}')"


def max_length_text(length: int) -> str:
    """Say that a text is too long, as the older checks do."""
    return f"must be no more than {length} characters"


def _max_bytes_text(length: int) -> str:
    return f"must be no more than {length} bytes"


@lru_cache(_KEPT)
def dns1123_label_errors(value: str) -> Complaints:
    """A DNS label: at most 63 of a-z, 0-9 and hyphens, the latter not at either end."""
    if len(value) <= LABEL_MAX and _label(value):
        return ()
    errors = []
    if byte_length(value) > LABEL_MAX:
        errors.append(max_length_text(LABEL_MAX))
    if not _label(value):
        if _subdomain(value):
            errors.append("must not contain dots")
        else:
            words = (
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
                "and must start and end with an alphanumeric character"
            )
            errors.append(regex_text(words, _LABEL, "my-name", "123-abc"))
    return tuple(errors)


@lru_cache(_KEPT)
def dns1123_subdomain_errors(value: str) -> Complaints:
    """DNS labels joined by dots, at most 253 characters."""
    errors = []
    if byte_length(value) > SUBDOMAIN_MAX:
        errors.append(max_length_text(SUBDOMAIN_MAX))
    if not _subdomain(value):
        errors.append(regex_text(_SUBDOMAIN_WORDS, _SUBDOMAIN, "example.com"))
    return tuple(errors)


@lru_cache(_KEPT)
def dns1123_subdomain_caseless_errors(value: str) -> Complaints:
    """A DNS subdomain in which capitals are allowed."""
    errors = []
    if byte_length(value) > SUBDOMAIN_MAX:
        errors.append(_max_bytes_text(SUBDOMAIN_MAX))
    if not _subdomain_caseless(value):
        words = (
            "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        errors.append(regex_text(words, _SUBDOMAIN, "Example.com"))
    return tuple(errors)


@lru_cache(_KEPT)
def dns1123_subdomain_underscore_errors(value: str) -> Complaints:
    """A DNS subdomain whose labels may hold underscores (search domains of a resolver)."""
    errors = []
    if byte_length(value) > SUBDOMAIN_MAX:
        errors.append(max_length_text(SUBDOMAIN_MAX))
    if not _subdomain_underscore(value):
        words = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        errors.append(regex_text(words, _SUBDOMAIN_UNDERSCORE, "example.com"))
    return tuple(errors)


@lru_cache(_KEPT)
def dns1035_label_errors(value: str) -> Complaints:
    """A DNS label that begins with a letter."""
    errors = []
    if byte_length(value) > LABEL_MAX:
        errors.append(max_length_text(LABEL_MAX))
    if not _label_1035(value):
        words = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character"
        )
        errors.append(regex_text(words, _LABEL_1035, "my-name", "abc-123"))
    return tuple(errors)


@lru_cache(_KEPT)
def wildcard_dns1123_subdomain_errors(value: str) -> Complaints:
    """A DNS subdomain below "*."."""
    errors = []
    if byte_length(value) > SUBDOMAIN_MAX:
        errors.append(max_length_text(SUBDOMAIN_MAX))
    if not _wildcard(value):
        words = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
            "consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        errors.append(regex_text(words, _WILDCARD, "*.example.com"))
    return tuple(errors)


@lru_cache(_KEPT)
def qualified_name_errors(value: str) -> Complaints:
    """A label key: a name of at most 63 bytes, optionally after a DNS subdomain and a slash."""
    parts = value.split("/")
    pattern = regex_text(_QUALIFIED_WORDS, _QUALIFIED, "MyName", "my.name", "123-abc")
    if len(parts) > 2:
        optional = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return (f"a valid label key {pattern}{optional}",)
    errors = []
    name = parts[-1]
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            if byte_length(prefix) > SUBDOMAIN_MAX:
                errors.append(f"prefix part {_max_bytes_text(SUBDOMAIN_MAX)}")
            if not _subdomain(prefix):
                errors.append(f"prefix part {regex_text(_SUBDOMAIN_WORDS, _SUBDOMAIN, 'example.com')}")
    if not name:
        errors.append("name part must be non-empty")
    elif byte_length(name) > LABEL_MAX:
        errors.append(f"name part {_max_bytes_text(LABEL_MAX)}")
    if not _qualified(name):
        errors.append(f"name part {pattern}")
    return tuple(errors)


@lru_cache(_KEPT)
def label_value_errors(value: str) -> Complaints:
    """A label's value: empty, or at most 63 letters, digits, and -_. in between."""
    errors = []
    if byte_length(value) > LABEL_MAX:
        errors.append(_max_bytes_text(LABEL_MAX))
    if not _label_value(value):
        words = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        errors.append(regex_text(words, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return tuple(errors)


def c_identifier_errors(value: str) -> Complaints:
    """A name as the language C has them."""
    if _c_identifier(value):
        return ()
    words = (
        "a valid C identifier must start with alphabetic character or '_', "
        "followed by a string of alphanumeric characters or '_'"
    )
    return (regex_text(words, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName"),)


def _parent_folder_errors(value: str) -> list[str]:
    if value == ".":
        return ["must not be '.'"]
    if value == "..":
        return ["must not be '..'"]
    if value.startswith(".."):
        return ["must not start with '..'"]
    return []


@lru_cache(_KEPT)
def env_var_name_errors(value: str) -> Complaints:
    """An environment variable's name, as the strict rule has it."""
    errors = []
    if not _env_var(value):
        words = (
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
            "and must not start with a digit"
        )
        errors.append(regex_text(words, _ENV_VAR, "my.env-name", "MY_ENV.NAME", "MyEnvName1"))
    return (*errors, *_parent_folder_errors(value))


@lru_cache(_KEPT)
def relaxed_env_var_name_errors(value: str) -> Complaints:
    """An environment variable's name: printable ASCII without the equals sign."""
    errors = []
    if not value:
        errors.append("environment variable name must be non-empty")
    if any(not " " <= char <= "~" or char == "=" for char in value):
        errors.append(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
        )
    return tuple(errors)


@lru_cache(_KEPT)
def config_map_key_errors(value: str) -> Complaints:
    """A key of a ConfigMap or Secret, which may become a file's name."""
    errors = []
    if byte_length(value) > SUBDOMAIN_MAX:
        errors.append(max_length_text(SUBDOMAIN_MAX))
    if not _config_key(value):
        words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        errors.append(regex_text(words, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return (*errors, *_parent_folder_errors(value))


def http_header_name_errors(value: str) -> Complaints:
    """The name of an HTTP header."""
    if _header(value):
        return ()
    words = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return (regex_text(words, _HEADER, "X-Header-Name"),)


def percent_errors(value: str) -> Complaints:
    """Digits and a percent sign."""
    if _percent(value):
        return ()
    words = "a valid percent string must be a numeric string followed by an ending '%'"
    return (regex_text(words, _PERCENT, "1%", "93%"),)


@lru_cache(_KEPT)
def port_name_errors(value: str) -> Complaints:
    """A port's name: an IANA service name of at most 15 characters."""
    errors = []
    if byte_length(value) > 15:
        errors.append(max_length_text(15))
    if not _port_charset(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _letter(value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value and "-" in (value[0], value[-1]):
        errors.append("must not begin or end with a hyphen")
    return tuple(errors)


def range_errors(value: int, low: int, high: int) -> Complaints:
    """A number between two others."""
    return () if low <= value <= high else (f"must be between {low} and {high}, inclusive",)


def port_number_errors(value: int) -> Complaints:
    """A port's number."""
    return () if 1 <= value <= 65535 else ("must be between 1 and 65535, inclusive",)


def user_id_errors(value: int) -> Complaints:
    """A user's number."""
    return () if 0 <= value <= 2147483647 else ("must be between 0 and 2147483647, inclusive",)


def group_id_errors(value: int) -> Complaints:
    """A group's number."""
    return user_id_errors(value)


def decimal_integer_errors(value: str) -> Complaints:
    """A whole number written in the one canonical way."""
    if _decimal(value):
        return ()
    return ("must be a valid decimal integer in canonical form",) if value else ("must be non-empty",)


def _mask_trailing_dash(name: str) -> str:
    """A name to which more will be added may end with a hyphen."""
    return name[:-2] + "a" if len(name) > 1 and name.endswith("-") else name


def dns_subdomain_name(name: str, prefix: bool = False) -> Complaints:
    """The rule of most kinds' metadata.name; `prefix` says that it is a generateName."""
    return dns1123_subdomain_errors(_mask_trailing_dash(name) if prefix else name)


def declared_subdomain_name(name: str, prefix: bool = False) -> Complaints:
    """The same where upstream declares the rule beside the type: it counts bytes."""
    errors = dns_subdomain_name(name, prefix)
    return tuple(_max_bytes_text(SUBDOMAIN_MAX) if one == max_length_text(SUBDOMAIN_MAX) else one for one in errors)


def dns_label_name(name: str, prefix: bool = False) -> Complaints:
    """The rule of a namespace's name."""
    return dns1123_label_errors(_mask_trailing_dash(name) if prefix else name)


def service_name(name: str, prefix: bool = False) -> Complaints:
    """The older rule of a Service's name."""
    return dns1035_label_errors(_mask_trailing_dash(name) if prefix else name)


def path_segment_name(name: str, prefix: bool = False) -> Complaints:
    """The rule that every name obeys: it must fit into a URL's path."""
    if not prefix and name in (".", ".."):
        return (f"may not be '{name}'",)
    return tuple(f"may not contain '{char}'" for char in "/%" if char in name)


def fully_qualified_name_errors(name: str) -> Complaints:
    """A DNS subdomain of three labels at least."""
    if errors := dns1123_subdomain_errors(name):
        return (",".join(errors),)
    if name.count(".") < 2:
        return ("should be a domain with at least three segments separated by dots",)
    return ()


def validate_fully_qualified_name(name: str, path: Path) -> ErrorList:
    """Check a DNS subdomain of three labels at least."""
    if not name:
        return [required(path, "")]
    return [invalid(path, name, text) for text in fully_qualified_name_errors(name)]


def fully_qualified_domain_name_errors(name: str) -> tuple[tuple[str, str], ...]:
    """A DNS name of two labels at least, a final dot allowed; returns (bad part, complaint)."""
    name = name.removesuffix(".")
    if errors := dns1123_subdomain_errors(name):
        return ((name, ",".join(errors)),)
    if "." not in name:
        return ((name, "should be a domain with at least two segments separated by dots"),)
    for label in name.split("."):
        if errors := dns1123_label_errors(label):
            return ((label, ",".join(errors)),)
    return ()


def validate_fully_qualified_domain_name(name: str, path: Path) -> ErrorList:
    """Check a DNS name of two labels at least."""
    if not name:
        return [required(path, "")]
    return [invalid(path, part, text) for part, text in fully_qualified_domain_name_errors(name)]


def validate_domain_prefixed_path(value: str, path: Path) -> ErrorList:
    """Check a name such as acme.io/foo."""
    if not value:
        return [required(path, "")]
    host, slash, rest = value.partition("/")
    if not slash or not host or not rest:
        return [invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = [invalid(path, host, text) for text in dns1123_subdomain_errors(host)]
    if not _http_path(rest):
        errors.append(invalid(path, rest, regex_text("Invalid path", _HTTP_PATH)))
    return errors


def validate_domain_prefixed_key(key: str, path: Path) -> ErrorList:
    """Check a label key that must have a prefix."""
    if not key:
        return [required(path, "")]
    errors = [invalid(path, key, text) for text in qualified_name_errors(key)]
    if not errors and key.count("/") != 1:
        errors.append(invalid(path, key, 'must be a domain-prefixed key (such as "acme.io/foo")'))
    return errors
