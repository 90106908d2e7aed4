"""What the hot lane and the gate share in one worker."""

from collections.abc import Mapping
from typing import NamedTuple

from serving.gateway.admission import Admission, Limits
from serving.gateway.metrics import Meter
from serving.gateway.security import Authenticator
from serving.gateway.tenants import Tenant


class Parts(NamedTuple):
    """Who asks, what for, how much of it, and what is counted."""

    authenticator: Authenticator
    tenants: Mapping[str, Tenant]
    admission: Admission
    limits: Limits
    meter: Meter
