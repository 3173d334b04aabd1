"""Which address is which view."""

from django.contrib.auth.views import LoginView
from django.urls import path

from house import views

urlpatterns = [
    path("", views.temperature, name="temperature"),
    path("lasting/", views.lasting, name="lasting"),
    path("gateway-token/", views.gateway_token, name="gateway-token"),
    path("login/", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout/", views.Logout.as_view(), name="logout"),
]
