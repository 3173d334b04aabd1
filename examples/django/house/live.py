"""What takes the place of Channels: a token for each user, and one POST for each temperature."""

import json
import time
from urllib.request import Request, urlopen

import jwt
from django.conf import settings


def token(subject, roles):
    """A token that the gateway takes for TOKEN_SECONDS; gateway.toml says what a role may do."""
    now = int(time.time())
    claims = {"sub": subject, "roles": roles, "iat": now, "exp": now + settings.TOKEN_SECONDS}
    return jwt.encode(claims, settings.GATEWAY_ACCESS_SECRET, algorithm="HS256")


def user_token(user):
    """The token of a user: a viewer, and whatever the user's groups in Django are called."""
    return token(f"user-{user.pk}", ["viewer", *user.groups.values_list("name", flat=True)])


def send_temperature_update(temperature, sensor="living-climate"):
    """Gives a temperature to everybody who looks at it."""
    request = Request(
        f"{settings.GATEWAY_URL}/topics/sensors/{sensor}/state",
        json.dumps({"temperature": temperature}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token('site', ['site'])}"},
    )
    urlopen(request, timeout=5).close()
