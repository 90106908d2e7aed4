"""The addresses of a running product, as external clients get them: from endpoints.json only."""

from pathlib import Path

import msgspec

from adapters.kafka.settings import KafkaSettings
from deploy.local.paths import LOCAL
from schemas.errors import StackError

ENDPOINTS_PATH = LOCAL / "endpoints.json"


class Endpoints(msgspec.Struct, frozen=True):
    """The contents of the file that `freshet up` writes. `key_ring` is a path."""

    kafka: str
    redis: str
    topic_prefix: str
    key_ring: str

    def kafka_settings(self) -> KafkaSettings:
        """The settings for connecting to this product's Kafka."""
        return KafkaSettings(self.kafka, self.topic_prefix)


def load_endpoints(path: Path = ENDPOINTS_PATH) -> Endpoints:
    """The addresses in `path`; raises :class:`StackError` if no stack is running."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        raise StackError(f"{path.name} does not exist: nothing is running; `freshet up` starts the stack") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise StackError(f"{path.name} does not say what a client needs: {error}") from None
