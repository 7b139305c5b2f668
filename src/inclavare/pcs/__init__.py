"""Intel's Provisioning Certification Service (PCS) version 4: a server for the software platform, and a client."""
