"""The pages, and the cookie that opens the gateway to whoever is logged in."""

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LogoutView
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render

from house.live import user_token


def with_cookie(response, value):
    """The response, with the token in a cookie that scripts can't read and other sites can't send."""
    response.set_cookie(
        settings.TOKEN_COOKIE,
        value,
        max_age=settings.TOKEN_SECONDS,
        secure=not settings.DEBUG,
        httponly=True,
        samesite="Lax",
    )
    return response


@login_required
def temperature(request):
    """The article's page. It knows of no token, so it is loaded anew before its cookie ends."""
    address = settings.GATEWAY_PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")
    response = render(request, "temperature.html", {"gateway": address.replace("http", "ws", 1)})
    response["Refresh"] = str(settings.TOKEN_SECONDS * 3 // 4)
    return with_cookie(response, user_token(request.user))


@login_required
def lasting(request):
    """The same with the client library: it renews its token by itself, comes back after a cut, and misses nothing."""
    return render(request, "lasting.html", {"gateway": settings.GATEWAY_PUBLIC_URL})


def gateway_token(request):
    """A token for the client library."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    value = user_token(request.user)
    return with_cookie(JsonResponse({"token": value}, headers={"Cache-Control": "no-store"}), value)


class Logout(LogoutView):
    """Django's, and the cookie goes, too."""

    def post(self, request, *args, **kwargs):
        """Logs out."""
        response = super().post(request, *args, **kwargs)
        response.delete_cookie(settings.TOKEN_COOKIE, samesite="Lax")
        return response
