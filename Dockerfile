# Self-hosting: docker build -t eartalking . && docker run -p 7860:7860 eartalking
# For the small CPU build of PyTorch pass the index it is on: --build-arg PIP_EXTRA_INDEX_URL=...
# On a GPU machine: docker run --gpus all -p 7860:7860 eartalking
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app
ARG PIP_EXTRA_INDEX_URL
COPY --chown=user . .
RUN pip install --no-cache-dir -e .[demo]
USER user

# Nothing is fetched while it runs.
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_ANALYTICS_ENABLED=False HF_HUB_OFFLINE=1
EXPOSE 7860
HEALTHCHECK --interval=30s --start-period=30s CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/')"
CMD ["python", "app.py"]
