"""What several tests need: brokers, gateways, publishers, subscribers, certificates, and waiting without sleeping."""
