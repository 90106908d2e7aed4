"""Connection settings of Kafka, as in settings files and as kafka-python expects them."""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from adapters.hosts import is_host
from adapters.secrets.secret_files import read_secret_variable
from schemas import topics

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

FIRST_REPLY_TIMEOUT_MS: Final = 5_000
"""How long a client waits for the first reply of a broker; kafka-python's default is 30 s."""
PORT_MAX: Final = 65_535
_SERVER: Final = re.compile(r"^\s*[^\s,]+:[0-9]{1,5}\s*$")


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach Kafka. Certificates and keys are PEM files."""

    bootstrap_servers: str
    """One or more brokers, `host:port`, separated by commas."""
    topic_prefix: str = "freshet."
    """Put before the name of every topic, so that several deployments can share a cluster."""
    group_id: str | None = None
    """The job's consumer group, and the prefix of its transactional ids. By default it is derived from `topic_prefix`:
    `freshet.` gives `freshet-personalise`. Two jobs with the same group abort each other's transactions.
    """
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Whether to use TLS (`SSL`), SASL, or both."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Required with SASL, refused without it."""
    username: str | None = None
    """The SASL user."""
    password_variable: str | None = None
    """The environment variable that holds the SASL password."""
    ca_file: str | None = None
    """The certificate authorities to trust."""
    cert_file: str | None = None
    """The client certificate; needs `key_file`."""
    key_file: str | None = None
    """The private key of the client certificate."""
    transaction_timeout_ms: Annotated[int, Meta(ge=10_000)] | None = None
    """How long the job may be down without losing what it wrote but had not committed. By default
    `privacy.snapshots_kept_ms` (a week), at most 24 days; the brokers' `transaction.max.timeout.ms` must not be less. A
    running job in which no checkpoint completes for that long restarts.
    """

    def topic(self, name: str) -> str:
        """The full name of a topic in :mod:`schemas.topics`."""
        return self.topic_prefix + name

    def group(self) -> str:
        """The consumer group and prefix of transactional ids; derived from the topic prefix unless `group_id` is set.

        >>> [KafkaSettings("", topic_prefix=prefix).group() for prefix in ("freshet.", "shop.", "shop", "shop-", "")]
        ['freshet-personalise', 'shop-personalise', 'shop.personalise', 'shop-.personalise', '.personalise']
        """
        if self.group_id is not None:
            return self.group_id
        stem = self.topic_prefix.removesuffix(".")
        return f"{stem}-personalise" if stem != self.topic_prefix else f"{stem}.personalise"


def complaint_of(kafka: KafkaSettings) -> str | None:
    """Describe inconsistent settings; Kafka's own client would only report them after submission."""
    if not all(map(_is_server, kafka.bootstrap_servers.split(","))):
        return "kafka.bootstrap_servers must be host:port, or several of them separated by commas"
    if complaint := topics.complaint_of_prefix(kafka.topic_prefix):
        return f"kafka.{complaint}"
    if kafka.group_id == "":
        return "kafka.group_id must not be empty: leave it out to derive it from topic_prefix"
    sasl = kafka.security_protocol.startswith("SASL_")
    if sasl and not (kafka.sasl_mechanism and kafka.username and kafka.password_variable):
        return f"{kafka.security_protocol} needs kafka.sasl_mechanism, username and password_variable"
    if kafka.password_variable is not None and not _VARIABLE.fullmatch(kafka.password_variable):
        return "kafka.password_variable must be the name of an environment variable: letters, digits and underscores"
    if kafka.sasl_mechanism and not sasl:
        return "kafka.sasl_mechanism needs kafka.security_protocol SASL_SSL or SASL_PLAINTEXT"
    if bool(kafka.cert_file) != bool(kafka.key_file):
        return "kafka.cert_file and kafka.key_file go together"
    return None


def _is_server(server: str) -> bool:
    """
    >>> [_is_server(server) for server in ("h:9092", " [::1]:9092 ", "h", "h:99999", "a..b:9092")]
    [True, True, False, False, False]
    """
    host, _, port = server.strip().rpartition(":")
    return bool(_SERVER.search(server)) and is_host(host.strip("[]")) and int(port) <= PORT_MAX


def python_kafka_options(kafka: KafkaSettings) -> dict[str, Any]:
    """The options of kafka-python's clients, security included."""
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers.split(","),
        "security_protocol": kafka.security_protocol,
        "ssl_cafile": kafka.ca_file,
        "ssl_certfile": kafka.cert_file,
        "ssl_keyfile": kafka.key_file,
        "bootstrap_timeout_ms": FIRST_REPLY_TIMEOUT_MS,
    }
    if kafka.sasl_mechanism:
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.username,
            "sasl_plain_password": read_secret_variable(kafka.password_variable),
        }
    return {name: value for name, value in options.items() if value is not None}
