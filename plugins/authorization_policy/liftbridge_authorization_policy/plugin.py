"""The hooks of the authorizer."""

from liftbridge.errors import ConfigError
from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.authorizer import Authorizer
from liftbridge.interfaces.context import PluginContext
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "authorization.policy.file",
            SettingKind.PATH,
            None,
            "The rules, a line for each: p, client, resource, method. Read again at SIGHUP.",
            aliases=("tls.client.authz.policy",),
        ),
        Setting(
            "authorization.policy.model",
            SettingKind.PATH,
            None,
            "A Casbin model, for rules with patterns, roles or denials. Unset, client, resource and method must be equal.",
            aliases=("tls.client.authz.model",),
        ),
    ]


@hookimpl
def liftbridge_authorizer() -> Provider:
    return Provider(
        "policy",
        "a policy file; with a model of its own, by casbin",
        _create,
        capabilities=frozenset({"casbin models"}),
    )


def _create(context: PluginContext) -> Authorizer:
    from liftbridge_authorization_policy.authorizer import PolicyAuthorizer

    policy = context.settings["authorization.policy.file"]
    if policy is None:
        raise ConfigError(
            "failed to load authorization permissions: no file has them. Name one with authorization.policy.file "
            "(tls.client.authz.policy)"
        )
    return PolicyAuthorizer(policy, context.settings["authorization.policy.model"])
