//! Who calls: a short-lived token, signed by the gateway, verified by every service.
//!
//! Services trust nothing else: no header of a client ever says who somebody is. EdDSA JWT
//! (RFC 7519, RFC 8037), one audience per service, valid for [`LIFETIME_S`].

mod pem;
mod verified;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ferroflow_types::time::SystemClock;
use ferroflow_types::{Access, Caller, Clock as _, Namespace, Principal};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use self::verified::Verified;

/// The metadata key that carries the token.
pub const HEADER: &str = "x-ff-identity";

/// How long a token is valid.
pub const LIFETIME_S: i64 = 60;

const ISSUER: &str = "ferroflow-gateway";

/// PKCS#8 around an Ed25519 private key (RFC 8410), up to the key's 32 bytes.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    /// The namespaces that the subject may act in; absent for the single user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespaces: Option<BTreeSet<Namespace>>,
    exp: i64,
}

/// A token that cannot be made or is not accepted.
#[derive(Debug, thiserror::Error)]
#[error("identity token: {0}")]
pub struct IdentityError(String);

/// Signs tokens; the gateway has it.
#[derive(Clone)]
pub struct Signer {
    key: Arc<EncodingKey>,
}

/// Verifies tokens for one service.
#[derive(Clone)]
pub struct Verifier {
    key: Arc<DecodingKey>,
    validation: Arc<Validation>,
    verified: Arc<Mutex<Verified>>,
}

/// A pair of keys: of this process alone and never written down, or shared by several processes.
pub struct Keys {
    secret: [u8; 32],
    public: PublicKey,
}

/// The half that services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl Keys {
    /// New keys.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| IdentityError(error.to_string()))?;
        Ok(Self::of(secret))
    }

    /// The keys of a PEM file with an Ed25519 private key (PKCS#8).
    ///
    /// # Errors
    /// What the file holds instead.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        pem::private_key(text).map(Self::of).map_err(IdentityError)
    }

    fn of(secret: [u8; 32]) -> Self {
        let public = ed25519_dalek::SigningKey::from_bytes(&secret)
            .verifying_key()
            .to_bytes();
        Self {
            secret,
            public: PublicKey(public),
        }
    }

    /// The signer of these keys.
    pub fn signer(&self) -> Signer {
        let mut der = PKCS8.to_vec();
        der.extend_from_slice(&self.secret);
        Signer {
            key: Arc::new(EncodingKey::from_ed_der(&der)),
        }
    }

    /// The half that verifies.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The verifier for the service called `audience`.
    pub fn verifier(&self, audience: &str) -> Verifier {
        self.public.verifier(audience)
    }
}

impl PublicKey {
    /// The key of a PEM file with an Ed25519 public key, or with a certificate of one.
    ///
    /// # Errors
    /// What the file holds instead.
    pub fn from_pem(text: &str) -> Result<Self, IdentityError> {
        pem::public_key(text).map(Self).map_err(IdentityError)
    }

    /// The verifier for the service called `audience`.
    pub fn verifier(&self, audience: &str) -> Verifier {
        // The only algorithm that is accepted, whatever the header of a token names.
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[audience]);
        // By default only `exp` is required, and a claim that is missing is not compared with
        // anything.
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Seconds that clocks may differ. The default of 60 would double the life of a token.
        validation.leeway = 5;
        let key = DecodingKey::from_ed_der(&self.0);
        Verifier {
            key: Arc::new(key),
            validation: Arc::new(validation),
            verified: Arc::default(),
        }
    }
}

impl Signer {
    /// A token that says to `audience` who calls, and what they may; `now_s` in seconds since the
    /// epoch.
    pub fn sign(
        &self,
        caller: &Caller,
        audience: &str,
        now_s: i64,
    ) -> Result<String, IdentityError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: audience.to_owned(),
            sub: caller.principal.subject.clone(),
            groups: caller.principal.groups.clone(),
            namespaces: match &caller.access {
                Access::SingleUser => None,
                Access::Namespaces(namespaces) => Some(namespaces.clone()),
            },
            exp: now_s + LIFETIME_S,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.key)
            .map_err(|error| IdentityError(error.to_string()))
    }
}

impl Verifier {
    /// Who calls and what they may, if the token is good.
    pub fn verify(&self, token: &str) -> Result<Caller, IdentityError> {
        let now = SystemClock.now().seconds();
        let verified = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(caller) = verified().caller(token, now) {
            return Ok(caller);
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| IdentityError(error.to_string()))?;
        let Claims {
            sub,
            groups,
            namespaces,
            exp,
            ..
        } = data.claims;
        let caller = Caller {
            principal: Principal {
                subject: sub,
                groups,
            },
            access: namespaces.map_or(Access::SingleUser, Access::Namespaces),
        };
        verified().remember(token, &caller, exp, now);
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_token_of_our_gateway_for_this_service_is_accepted() {
        let keys = Keys::generate().unwrap();
        let now = SystemClock.now().seconds();
        let signer = keys.signer();
        let good = signer.sign(&Caller::local(), "pipeline-svc", now).unwrap();

        assert_eq!(
            keys.verifier("pipeline-svc").verify(&good).unwrap(),
            Caller::local()
        );
        assert!(keys.verifier("katib-svc").verify(&good).is_err());
        let others = Keys::generate().unwrap();
        assert!(others.verifier("pipeline-svc").verify(&good).is_err());
        let old = signer
            .sign(&Caller::local(), "pipeline-svc", now - 600)
            .unwrap();
        assert!(keys.verifier("pipeline-svc").verify(&old).is_err());
        let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
        assert!(keys.verifier("pipeline-svc").verify(&unsigned).is_err());
    }

    #[test]
    fn what_a_caller_may_is_in_the_token() {
        let keys = Keys::generate().unwrap();
        let namespaces = ["a", "b"].map(|name| name.parse().unwrap());
        for namespaces in [BTreeSet::new(), BTreeSet::from(namespaces)] {
            let caller = Caller {
                principal: Principal {
                    subject: "ann".to_owned(),
                    groups: vec!["staff".to_owned()],
                },
                access: Access::Namespaces(namespaces),
            };
            let now = SystemClock.now().seconds();
            let token = keys.signer().sign(&caller, "x", now).unwrap();
            assert_eq!(keys.verifier("x").verify(&token).unwrap(), caller);
        }
    }
}
