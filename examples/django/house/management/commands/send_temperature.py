"""`python manage.py send_temperature 21.5`."""

from django.core.management.base import BaseCommand

from house.live import send_temperature_update


class Command(BaseCommand):
    """Sends one temperature, as a view, a signal or a task would."""

    help = "Send a temperature to everybody who looks at it."

    def add_arguments(self, parser):
        """The temperature, and of which sensor it is."""
        parser.add_argument("temperature", type=float)
        parser.add_argument("--sensor", default="living-climate")

    def handle(self, **options):
        """Sends it."""
        send_temperature_update(options["temperature"], options["sensor"])
