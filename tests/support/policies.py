"""Models and policies as operators have them."""

#: The original's example.
PLAIN_MODEL = """\
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""

#: Roles, with ``g, client, role``.
ROLES_MODEL = PLAIN_MODEL.replace("[policy_effect]", "[role_definition]\ng = _, _\n\n[policy_effect]").replace(
    "r.sub == p.sub", "g(r.sub, p.sub)"
)
