"""Clients of policy and PRM."""

from typing import Final

from ratchet.clients.paths import model_path
from ratchet.contracts.policy import (
    GenerateRequest,
    GenerateResponse,
    LikelihoodRequest,
    LikelihoodResponse,
)
from ratchet.contracts.prm import ScoreRequest, ScoreResponse
from ratchet.contracts.serving import HeldModel, HeldModels, LoadModel, ServeModel
from ratchet.service_client import ServiceClient

QUEUED_SECONDS: Final = 1800.0
"""For what waits its turn in a model service. On a slow engine with many searches that takes minutes, and a request that is
given up and sent again has cost its tokens and stands at the end. What is gone is noticed sooner: its connections break."""

RELOAD_SECONDS: Final = 180.0
"""Retrying for so long outlasts a reload of the policy's engine, which takes up to two minutes. The PRM reads likelihoods
from the policy, so it waits as long."""


class ModelServiceClient(ServiceClient):
    """What policy and PRM have in common: they hold versions of models. Every method raises ServiceError."""

    attempt_seconds = QUEUED_SECONDS
    retry_seconds = RELOAD_SECONDS

    async def models(self) -> list[HeldModel]:
        """The versions that the service holds, the serving one first."""
        return (await self._call(HeldModels, "GET", "/models")).models

    async def load(self, version: str, request: LoadModel) -> HeldModel:
        """Hold a version beside the others; returns when it can be asked."""
        return await self._call(HeldModel, "PUT", model_path(version), request)

    async def serve(self, version: str) -> HeldModel:
        """Answer with this version where a request names none. No request is dropped."""
        return await self._call(HeldModel, "POST", "/serving", ServeModel(version=version))

    async def unload(self, version: str) -> HeldModels:
        """Let go of a version that does not serve, once its requests have ended."""
        return await self._call(HeldModels, "DELETE", model_path(version))


class PolicyClient(ModelServiceClient):
    """The policy: candidate steps and likelihoods."""

    service = "policy"

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Candidates after each prefix. Raises ServiceError."""
        return await self._call(GenerateResponse, "POST", "/generate", request)

    async def likelihood(self, request: LikelihoodRequest) -> LikelihoodResponse:
        """Log-probabilities of given steps. Raises ServiceError."""
        return await self._call(LikelihoodResponse, "POST", "/likelihood", request)


class PrmClient(ModelServiceClient):
    """The PRM: scores of steps."""

    service = "prm"

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """A score in [0, 1] for every step of every trajectory. Raises ServiceError."""
        return await self._call(ScoreResponse, "POST", "/score", request)
