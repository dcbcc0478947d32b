-- Client certificates, their keys and authorities of subscriptions (core/tls_material.h), sealed as secrets are.
CREATE TABLE subscription_tls (
    subscription INTEGER PRIMARY KEY,
    tenant       INTEGER NOT NULL,
    seal_key     INTEGER NOT NULL,
    sealed       BLOB    NOT NULL
);
