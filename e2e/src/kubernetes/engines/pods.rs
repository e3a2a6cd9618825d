//! Which pod has which address, and what its engine's state is.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    pin::pin,
    sync::{Arc, OnceLock},
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use parking_lot::{Mutex, RwLock};
use shoal_wire::{
    FleetSecret,
    rpc::{EngineState, Role},
    tls::{Identity, Material, TlsError},
};
use tokio::task::JoinHandle;

const OPERATORS: &str = "app.kubernetes.io/managed-by=shoal-operator";
const INSTANCES: &str = "app.kubernetes.io/managed-by=shoal-operator,app.kubernetes.io/component=instance";
/// Volume of an instance's pod that holds the fleet secret, and the key of its value.
const FLEET_VOLUME: &str = "fleet";
const SECRET_KEY: &str = "secret";
/// Volume of the fleet's certificates.
const TLS_VOLUME: &str = "tls";

/// The engine of one pod.
#[derive(Debug)]
pub(super) struct Engine {
    uid: String,
    /// Namespace and name of the fleet secret that the pod mounts.
    mounts: (String, String),
    /// The same of the Secret with the fleet's certificates.
    certificates: (String, String),
    /// Read once, as a process does when it starts.
    secret: OnceLock<FleetSecret>,
    pub(super) state: Mutex<EngineState>,
}

#[derive(Debug, Default)]
pub(super) struct Pods {
    by_address: RwLock<HashMap<IpAddr, Arc<Engine>>>,
    secrets: RwLock<HashMap<(String, String), FleetSecret>>,
    identities: RwLock<HashMap<(String, String), Arc<Identity>>>,
}

impl Engine {
    /// None until the pod has an address.
    fn of(pod: &Pod) -> Option<(IpAddr, Self)> {
        let address = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
        let namespace = pod.metadata.namespace.clone()?;
        let volumes = pod.spec.as_ref()?.volumes.as_ref()?;
        let mounted = |name: &str| {
            let secret = volumes.iter().find(|volume| volume.name == name)?.secret.as_ref()?;
            Some((namespace.clone(), secret.secret_name.clone()?))
        };
        let (mounts, certificates) = (mounted(FLEET_VOLUME)?, mounted(TLS_VOLUME)?);
        let (name, uid) = (pod.metadata.name.clone()?, pod.metadata.uid.clone()?);
        let state = EngineState {
            instance: name,
            incarnation: uid.clone(),
            role: Role::Mixed.into(),
            model: "none".to_owned(),
            ..EngineState::default()
        };
        let (secret, state) = (OnceLock::new(), Mutex::new(state));
        Some((address, Self { uid, mounts, certificates, secret, state }))
    }
}

impl Pods {
    /// The engine at that address, and its fleet's secret; why there is none.
    pub(super) fn at(&self, address: IpAddr) -> Result<(Arc<Engine>, FleetSecret), &'static str> {
        let engine = self.by_address(address).ok_or("no pod has this address")?;
        if engine.secret.get().is_none()
            && let Some(found) = self.secrets.read().get(&engine.mounts)
        {
            engine.secret.get_or_init(|| found.clone());
        }
        let secret = engine.secret.get().cloned().ok_or("the fleet secret is not there to be read")?;
        Ok((engine, secret))
    }

    /// Who the engine at that address is to its peers, once its certificates were seen.
    pub(super) fn identity(&self, address: IpAddr) -> Option<Arc<Identity>> {
        let engine = self.by_address(address)?;
        self.identities.read().get(&engine.certificates).cloned()
    }

    pub(super) fn by_address(&self, address: IpAddr) -> Option<Arc<Engine>> {
        self.by_address.read().get(&address).cloned()
    }

    fn add(&self, pod: &Pod) {
        let Some((address, engine)) = Engine::of(pod) else { return };
        let mut engines = self.by_address.write();
        if engines.get(&address).is_none_or(|known| known.uid != engine.uid) {
            engines.insert(address, Arc::new(engine));
        }
    }

    fn remove(&self, gone: impl Fn(&str) -> bool) {
        self.by_address.write().retain(|_, engine| !gone(&engine.uid));
    }

    fn keep_certificates(&self, secret: &Secret) -> Result<(), TlsError> {
        let key = (secret.metadata.namespace.clone(), secret.metadata.name.clone());
        let (Some(material), (Some(namespace), Some(name))) = (material(secret), key) else { return Ok(()) };
        let mut identities = self.identities.write();
        if let Some(known) = identities.get(&(namespace.clone(), name.clone())) {
            return known.replace(&material);
        }
        identities.insert((namespace, name), Identity::new(&material)?);
        Ok(())
    }

    fn keep(&self, secret: &Secret) {
        let value = secret.data.as_ref().and_then(|data| FleetSecret::parse(&data.get(SECRET_KEY)?.0));
        let key = (secret.metadata.namespace.clone(), secret.metadata.name.clone());
        if let ((Some(namespace), Some(name)), Some(value)) = (key, value) {
            self.secrets.write().insert((namespace, name), value);
        } else if let Err(error) = self.keep_certificates(secret) {
            eprintln!("certificates that cannot be used: {error}");
        }
    }
}

/// What a Secret with certificates holds; none for any other.
fn material(secret: &Secret) -> Option<Material> {
    let data = secret.data.as_ref()?;
    let text = |key| data.get(key).map(|content| content.0.clone());
    Some(Material { authorities: text("ca.crt")?, certificate: text("tls.crt")?, key: text("tls.key")? })
}

/// Follows pods and secrets for as long as the two tasks run.
pub(super) fn watch(client: Client, pods: Arc<Pods>) -> [JoinHandle<()>; 2] {
    let found = watched(Api::<Pod>::all(client.clone()), INSTANCES);
    let secrets = watched(Api::<Secret>::all(client), OPERATORS);
    let known = Arc::clone(&pods);
    let follow_pods = async move {
        let (mut found, mut listed) = (pin!(found), HashSet::new());
        while let Some(event) = found.next().await {
            follow(&known, event, &mut listed);
        }
    };
    let follow_secrets = async move {
        let mut secrets = pin!(secrets);
        while let Some(event) = secrets.next().await {
            if let Event::Apply(secret) | Event::InitApply(secret) = event {
                pods.keep(&secret);
            }
        }
    };
    [tokio::spawn(follow_pods), tokio::spawn(follow_secrets)]
}

fn follow(pods: &Pods, event: Event<Pod>, listed: &mut HashSet<String>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(pod) => {
            pods.add(&pod);
            listed.extend(pod.metadata.uid);
        }
        Event::InitDone => pods.remove(|uid| !listed.contains(uid)),
        Event::Apply(pod) => pods.add(&pod),
        Event::Delete(pod) => pods.remove(|uid| Some(uid) == pod.metadata.uid.as_deref()),
    }
}

/// Events of a watch that begins again by itself when it breaks.
fn watched<K>(api: Api<K>, labels: &str) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().labels(labels);
    let events = watcher::watcher(api, config).default_backoff();
    events.filter_map(|event| {
        let event = event.inspect_err(|error| eprintln!("a watch broke: {error}"));
        std::future::ready(event.ok())
    })
}
