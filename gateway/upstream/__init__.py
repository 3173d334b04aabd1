"""The link to the broker; nothing else imports aiomqtt or paho."""
