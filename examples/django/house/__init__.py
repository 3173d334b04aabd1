"""A site with Django's login and a page of live temperatures, without Channels: the gateway has its sockets."""
