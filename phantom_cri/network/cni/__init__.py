"""The CNI driver: pods on the network made by the administrator's plugins (CNI spec 1.1.0)."""
