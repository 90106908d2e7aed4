"""Configuration of Kafka's Java client for the job's source and sinks."""

from pathlib import Path
from typing import Final

from adapters.kafka.settings import KafkaSettings
from adapters.secrets.secret_files import read_secret_variable
from schemas.errors import SettingsError

_SHADED: Final = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security"
_PROVIDERS: Final = "org.apache.flink.kafka.shaded.org.apache.kafka.common.config.provider"
SASL_MODULES: Final = {
    "PLAIN": f"{_SHADED}.plain.PlainLoginModule",
    "SCRAM-SHA-256": f"{_SHADED}.scram.ScramLoginModule",
    "SCRAM-SHA-512": f"{_SHADED}.scram.ScramLoginModule",
}
"""Class names as relocated in `flink-sql-connector-kafka`, which bundles its own Kafka client."""


def flink_kafka_properties(kafka: KafkaSettings) -> dict[str, str]:
    """The properties of Kafka's Java client for source and sinks, security included.

    They contain no secret, because they travel in the job graph, which Flink shows and stores. The client resolves
    placeholders where it is created, on the JobManager and the TaskManagers: the password from an environment variable,
    the key from its file. So the variable and the files must exist there.
    """
    properties = {"bootstrap.servers": kafka.bootstrap_servers, "security.protocol": kafka.security_protocol}
    providers: dict[str, str] = {}
    if kafka.ca_file:
        _read("kafka.ca_file", kafka.ca_file)
        properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": kafka.ca_file}
    if kafka.cert_file and kafka.key_file:
        files = {"kafka.cert_file": kafka.cert_file, "kafka.key_file": kafka.key_file}
        chain, key = (_readable(setting, path) for setting, path in files.items())
        properties |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": f"${{directory:{chain.parent}:{chain.name}}}",
            "ssl.keystore.key": f"${{directory:{key.parent}:{key.name}}}",
        }
        providers |= {
            "config.providers.directory.class": f"{_PROVIDERS}.DirectoryConfigProvider",
            "config.providers.directory.param.allowed.paths": ",".join(sorted({str(chain.parent), str(key.parent)})),
        }
    if kafka.sasl_mechanism:
        module, quote = SASL_MODULES[kafka.sasl_mechanism], _quote_for(kafka.password_variable)
        placeholder = f"{quote}${{env:{kafka.password_variable}}}{quote}"
        properties |= {
            "sasl.mechanism": kafka.sasl_mechanism,
            "sasl.jaas.config": f'{module} required username="{_quoted(kafka.username)}" password={placeholder};',
        }
        providers |= {
            "config.providers.env.class": f"{_PROVIDERS}.EnvVarConfigProvider",
            "config.providers.env.param.allowlist.pattern": str(kafka.password_variable),
        }
    if providers:
        providers["config.providers"] = ",".join(sorted({name.split(".")[2] for name in providers}))
    return properties | providers


def _readable(setting: str, path: str) -> Path:
    """Return the absolute path of a readable PEM file; raises :class:`SettingsError`."""
    found = _read(setting, path)
    if set(str(found)) & set(":,{}$"):
        raise SettingsError(f"{setting} {path}: Kafka's client resolves no path with one of : , {{ }} $ in it")
    return found


def _read(setting: str, path: str) -> Path:
    found = Path(path).absolute()
    try:
        found.read_bytes()
    except OSError as error:
        raise SettingsError(f"{setting} {path} cannot be read: {error.strerror}") from None
    return found


def _quote_for(variable: str | None) -> str:
    """Choose the quotation mark for the password in the JAAS configuration, where Kafka inserts it unescaped."""
    password = read_secret_variable(variable) or ""
    for quote in ('"', "'"):
        if quote not in password and "\\" not in password and password.isprintable():
            return quote
    raise SettingsError(
        f"the password in {variable} has a backslash, a control character, or both kinds of quotation marks in it, "
        "which Kafka's Java client cannot take from the environment: choose another password"
    )


def _quoted(text: str | None) -> str:
    return (text or "").replace("\\", "\\\\").replace('"', '\\"')
