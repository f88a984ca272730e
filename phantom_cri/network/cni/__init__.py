"""The CNI driver: pods on whatever network the administrator's plugins make (CNI spec 1.1.0)."""
