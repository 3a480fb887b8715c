#!/bin/sh
# Starts LocalStack as the public image's entrypoint of this name does, with what differs here: the Python packages
# lie in /opt/code/localstack, and nothing is fetched from the Internet.
set -eu
export OVERRIDE_IN_DOCKER=${OVERRIDE_IN_DOCKER:-1}
exec /usr/bin/python3 -m localstack.runtime.main "$@"
