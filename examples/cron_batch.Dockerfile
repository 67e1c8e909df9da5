# An image for cron_batch.py. In a checkout of opero:
#
#   docker build -t batch -f examples/cron_batch.Dockerfile .
#   docker run --rm -e OPERO_CACHE_SECRET="$SECRET" -v batch:/var/cache/batch batch
#
# SECRET has 16 characters or more, without spaces, and is the same in each run. `docker stop` sends SIGTERM, and
# then the exit code is 143.

# The full image has a compiler, so that opero is compiled; the slim one below needs none.
FROM python:3.13 AS build
COPY . /src
RUN OPERO_BUILD=compiled pip wheel --wheel-dir /wheels "/src[disk]"

FROM python:3.13-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index /wheels/*.whl && rm -r /wheels
COPY examples/cron_batch.py /app/cron_batch.py

# Only its owner may write to the folder of a cache: opero refuses any other.
RUN useradd --system batch && install --directory --owner batch --mode 700 /var/cache/batch
USER batch
VOLUME /var/cache/batch
ENV BATCH_FOLDER=/var/cache/batch PYTHONUNBUFFERED=1

# As a list, without a shell: the program itself gets SIGTERM.
ENTRYPOINT ["python", "/app/cron_batch.py"]
