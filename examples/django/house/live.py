"""What takes the place of Channels: a token for each user, and one POST for each temperature."""

import json
import logging
import time
from urllib.request import Request, urlopen

import jwt
from django.conf import settings
from django.contrib.auth.signals import user_logged_out
from django.dispatch import receiver

logger = logging.getLogger(__name__)


def token(subject, roles):
    """A token that the gateway takes for TOKEN_SECONDS; gateway.toml says what a role may do."""
    now = int(time.time())
    claims = {"sub": subject, "roles": roles, "iat": now, "exp": now + settings.TOKEN_SECONDS}
    return jwt.encode(claims, settings.GATEWAY_ACCESS_SECRET, algorithm="HS256")


def user_token(user):
    """The token of a user: a viewer, and whatever the user's groups in Django are called."""
    return token(f"user-{user.pk}", ["viewer", *user.groups.values_list("name", flat=True)])


def post(path, body):
    """One POST to the gateway, as the site."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token('site', ['site'])}"}
    urlopen(Request(f"{settings.GATEWAY_URL}{path}", json.dumps(body).encode(), headers), timeout=5).close()


def send_temperature_update(temperature, sensor="living-climate"):
    """Gives a temperature to everybody who looks at it."""
    post(f"/topics/sensors/{sensor}/state", {"temperature": temperature})


@receiver(user_logged_out)
def end_sockets(user, **_):
    """Ends what is open by tokens of a user who logs out, in every tab and on every machine."""
    if user is None:
        return
    try:
        post("/tokens/revoke", {"subject": f"user-{user.pk}"})
    except OSError:
        logger.exception("the gateway is not told that user %s has logged out", user.pk)
