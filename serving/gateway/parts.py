"""What the hot lane and the gate share in one worker."""

from collections.abc import Mapping
from typing import NamedTuple

from serving.gateway.admission import Admission, Limits
from serving.gateway.metrics import Meter
from serving.gateway.problems import forbidden, too_many
from serving.gateway.security import Authenticator, Principal
from serving.gateway.tenants import Tenant, tenant_of


class GatewayParts(NamedTuple):
    """Authentication, tenants, admission, rate limits and metrics."""

    authenticator: Authenticator
    tenants: Mapping[str, Tenant]
    admission: Admission
    limits: Limits
    meter: Meter

    def admit(self, principal: Principal, route: str, now_s: float) -> tuple[Tenant, int]:
        """The tenant of a request, and how many requests its key has left. Raises :class:`Problem`."""
        if route not in principal.opens:
            raise forbidden(route)
        key = principal.tenant, principal.subject
        left = self.limits.take(key, now_s)
        if left < 0:
            problem = too_many(self.limits.retry_after_s(key, now_s), "this key has used up its requests")
            problem.headers += [(name.decode(), value.decode()) for name, value in self.limits.headers(0)]
            raise problem
        return tenant_of(self.tenants, principal.tenant), left
