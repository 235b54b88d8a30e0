//! Those who should not be let in, or not any more, knocking at real nodes.

mod support;

use bytes::Bytes;
use dfs::cluster::{Identity, JoinToken, NodeFiles};
use dfs::codec;
use dfs::env::{Env, real};
use dfs::error::{Code, Error};
use dfs::net::{ALPN_CLIENT, ALPN_JOIN, ALPN_NODE, ClientTls, Connection, Endpoint, Stream};
use dfs::proto::JoinAnswer;
use dfs::types::Credentials;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::cluster::{Cluster, HEALTHY_WITHIN, free_address};
use support::{bytes, until};

/// A connection attempt to a node on loopback.
const DIAL: Duration = Duration::from_secs(10);

/// A client's endpoint within the test's own process.
struct Knocking {
    runtime: tokio::runtime::Runtime,
    env: Env,
    endpoint: Endpoint,
}

impl Knocking {
    fn new() -> Knocking {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let env = real::env(runtime.handle().clone());
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let endpoint = runtime.block_on(Endpoint::bind(&env, any, None)).unwrap();
        Knocking {
            runtime,
            env,
            endpoint,
        }
    }

    fn dial(&self, to: &str, alpn: &'static [u8], with: &Credentials) -> Result<Connection, Error> {
        self.dial_as(to, alpn, &ClientTls::new(with).unwrap())
    }

    fn dial_as(&self, to: &str, alpn: &'static [u8], tls: &ClientTls) -> Result<Connection, Error> {
        let to = to.parse().unwrap();
        let dialled = self.endpoint.connect(to, alpn, tls, DIAL);
        self.runtime.block_on(dialled)
    }
}

fn user(file: &Path) -> Credentials {
    Identity::load(file).unwrap().credentials
}

/// Tries to join with this token; what was said. Nothing may be left that hinders a later join.
#[track_caller]
fn cannot_join(cluster: &mut Cluster, to: &str, token: &str, status: i32) -> String {
    let name = format!("stranger{}", cluster.members.len());
    let place = cluster.add(&name, &free_address(), &[]);
    let said = cluster.refused(place, &["--join", to, "--token", token], status);
    assert!(!cluster.members[place].data.join("node").exists(), "{said}");
    said
}

#[test]
fn tokens_that_are_wrong_used_expired_or_anothers() {
    let mut cluster = Cluster::start(1);
    let other = Cluster::start(1);
    let to = cluster.members[0].address.clone();

    let garbage = cannot_join(&mut cluster, &to, "not-a-token", 2);
    assert!(garbage.contains("token"), "{garbage}");
    let good = cluster.token(&[]);
    let mut mistyped = good.clone().into_bytes();
    let last = mistyped.len() - 3;
    mistyped[last] = if mistyped[last] == b'a' { b'b' } else { b'a' };
    let mistyped = String::from_utf8(mistyped).unwrap();
    let said = cannot_join(&mut cluster, &to, &mistyped, 2);
    assert!(said.contains("token"), "{said}");

    // The CA of the token's cluster is not what answers here: the wrong pin.
    let foreign = other.token(&[]);
    let said = cannot_join(&mut cluster, &to, &foreign, 5);
    assert!(said.contains("cluster"), "{said}");
    for users in [&["--client", "--user", "bob"][..], &["--user", "bob"]] {
        let users = cluster.token(users);
        let said = cannot_join(&mut cluster, &to, &users, 5);
        assert!(said.contains("the token is for a user"), "{said}");
    }
    let expired = cluster.token(&["--ttl", "1ms"]);
    let said = cannot_join(&mut cluster, &to, &expired, 5);
    assert!(said.contains("the token has expired"), "{said}");

    // What was refused before does not stand in the way of a good one; that is good once.
    let place = 1;
    let mut join = cluster.serve(place);
    join.args(["--join", &to, "--token", &good]);
    let mut joined = join.spawn().unwrap();
    until(HEALTHY_WITHIN, "the node joined", || {
        cluster.members[place].data.join("node").exists()
    });
    let said = cannot_join(&mut cluster, &to, &good, 5);
    joined.kill().unwrap();
    joined.wait().unwrap();
    assert!(said.contains("the token was used already"), "{said}");

    let mut login = cluster.command(&["login", &to, "--token", &foreign]);
    let output = login.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

/// The token's number with another secret, as whoever guesses would show it.
fn with_another_secret(cluster: &Cluster, token: &str) -> String {
    let ca = user(&cluster.members[0].data.join("admin.dfs")).ca;
    let id = JoinToken::parse(token).unwrap().id();
    let other = JoinToken::create(&*Knocking::new().env.rng, id, &ca);
    assert_ne!(other.to_string(), token);
    other.to_string()
}

#[test]
fn logins_with_tokens_that_are_wrong_used_expired_or_a_nodes() {
    let mut cluster = Cluster::start(1);
    let to = cluster.members[0].address.clone();
    let login = |token: &str, identity: &str| {
        cluster.dfs(&["--identity", identity, "login", &to, "--token", token])
    };
    // For people and as JSON; no identity comes of it.
    let cannot = |token: &str, status: i32, why: &str, hint: &str| {
        let said = login(token, "eve.dfs").fails(status);
        assert!(said.starts_with("dfs: ") && said.contains(why), "{said}");
        assert!(said.contains(hint), "{said}");
        assert!(!said.contains(token), "the token is shown: {said}");
        let line = ["--json", "--identity", "eve.dfs", "login", &to];
        let error = cluster.dfs(&[&line[..], &["--token", token]].concat());
        let error = error.error(status);
        let code = if status == 2 { "usage" } else { "denied" };
        assert_eq!(error["code"], code, "{error}");
        assert!(!cluster.path("eve.dfs").exists(), "{said}");
    };
    let create = ["--client", "--user", "bob"];
    let fresh = "make a new one with `dfs token create`";

    let good = cluster.token(&create);
    cannot("not-a-token", 2, "token", "");
    let wrong = with_another_secret(&cluster, &good);
    cannot(&wrong, 5, "the token is not known here", fresh);
    let expired = cluster.token(&[&create[..], &["--ttl", "1ms"]].concat());
    cannot(&expired, 5, "the token has expired", fresh);
    let nodes = cluster.token(&[]);
    let for_user = "make one with `dfs token create --client --user NAME`";
    cannot(&nodes, 5, "the token is for a node", for_user);
    // That somebody guessed at it does not spend it; it is good once.
    login(&good, "bob.dfs").ok();
    cluster.dfs(&["--identity", "bob.dfs", "ls", "/"]).ok();
    cannot(&good, 5, "the token was used already", fresh);
    cluster.dfs(&["--identity", "bob.dfs", "ls", "/"]).ok();

    // The node's token is still a node's, and nobody joins by guessing at it either.
    let wrong = with_another_secret(&cluster, &nodes);
    let said = cannot_join(&mut cluster, &to, &wrong, 5);
    assert!(said.contains("the token is not known here"), "{said}");
    let place = cluster.add("joins", &free_address(), &[]);
    cluster.run_with(place, &["--join", &to, "--token", &nodes]);
}

#[test]
fn a_data_directory_of_another_cluster_does_not_join() {
    let mut cluster = Cluster::start(1);
    let mut other = Cluster::start(1);
    other.write("f", b"theirs");
    other.dfs(&["put", "f", "/f"]).ok();
    assert_eq!(other.stop(0), 0);
    let (to, token) = (cluster.members[0].address.clone(), cluster.token(&[]));
    let said = other.refused(0, &["--join", &to, "--token", &token], 2);
    assert!(
        said.contains("belongs to node 1 of another cluster"),
        "{said}"
    );
    // Neither was harmed, and the token is still good.
    other.run(0);
    assert_eq!(other.dfs(&["cat", "/f"]).ok(), "theirs");
    let place = cluster.join();
    assert_eq!(cluster.members[place].id, 2);
    // As if it were one of this cluster's nodes: their CAs differ.
    let theirs = user(&other.members[0].data.join("admin.dfs"));
    let knocking = Knocking::new();
    let error = knocking.dial(&to, ALPN_CLIENT, &theirs).err().unwrap();
    assert_eq!(error.code.exit_status(), 5, "{error}");
}

#[test]
fn a_user_does_not_speak_as_a_node() {
    let cluster = Cluster::start(1);
    let admin = user(&cluster.members[0].data.join("admin.dfs"));
    let knocking = Knocking::new();
    let to = &cluster.members[0].address;
    let error = knocking.dial(to, ALPN_NODE, &admin).err().unwrap();
    assert_eq!(error.code.exit_status(), 5, "{error}");
    knocking.dial(to, ALPN_CLIENT, &admin).unwrap();
}

#[test]
#[allow(clippy::disallowed_methods)] // the test's own clock
fn a_removed_users_connections_end_within_five_seconds() {
    let cluster = Cluster::start(3);
    let token = cluster.token(&["--client", "--user", "bob"]);
    let to = cluster.members[0].address.clone();
    let bob = cluster.path("bob.dfs").display().to_string();
    let login = ["--identity", &bob, "login", &to, "--token", &token];
    cluster.dfs(&login).ok();
    let credentials = user(Path::new(&bob));
    let as_bob = ["--identity", &bob, "--json"];
    assert_eq!(cluster.dfs(&[&as_bob[..], &["ls", "/"]].concat()).status, 0);
    let error = cluster.dfs(&[&as_bob[..], &["token", "create"]].concat());
    error.fails(5);

    // Open connections to every node, and a program in the middle of its work.
    let knocking = Knocking::new();
    let open: Vec<Connection> = (cluster.members.iter())
        .map(|member| knocking.dial(&member.address, ALPN_CLIENT, &credentials))
        .collect::<Result<_, _>>()
        .unwrap();
    let mut put = cluster.command_at(1, &[&as_bob[..], &["put", "-", "/bobs"]].concat());
    put.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut put = put.spawn().unwrap();
    let mut pipe = put.stdin.take().unwrap();
    std::io::Write::write_all(&mut pipe, &bytes(1, 17 << 20)).unwrap();
    until(HEALTHY_WITHIN, "the put is under way", || {
        !cluster.members[0].files("chunks").is_empty()
    });

    cluster.dfs(&["user", "rm", "bob"]).ok();
    let removed = Instant::now();
    for connection in &open {
        let closed = async { tokio::time::timeout(DIAL, connection.closed()).await };
        let why = knocking.runtime.block_on(closed).expect("it was closed");
        assert!(why.message.contains("user bob was removed"), "{why}");
    }
    let took = removed.elapsed();
    assert!(took < Duration::from_secs(5), "closed after {took:?}");
    drop(pipe);
    let output = put.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    cluster.dfs(&["stat", "/bobs"]).fails(3);
    for member in &cluster.members {
        let error = knocking.dial(&member.address, ALPN_CLIENT, &credentials);
        assert_eq!(error.err().unwrap().code.exit_status(), 5);
    }
    // What he had begun is nobody's any more; the others go on.
    cluster.dfs(&["ls", "/"]).ok();
}

/// What came of one stream of garbage.
enum Sent {
    /// Half a frame, which is never finished.
    Open(Stream),
    /// What the node said, if anything.
    Ended(Option<Bytes>),
}

/// Garbage of another kind each `round`: a frame of it; bytes that may say they are one; half a
/// frame of `frame_bytes`.
async fn send_garbage(
    connection: &Connection,
    round: u64,
    frame_bytes: u32,
) -> Result<Sent, Error> {
    let garbage = bytes(round, [0, 1, 3, 40, 900, 70_000][round as usize % 6]);
    let mut stream = connection.open().await?;
    match round % 3 {
        0 => stream.send_frame(&garbage).await?,
        1 => stream.send_bytes(garbage.into()).await?,
        _ => {
            let half = [&frame_bytes.to_le_bytes()[..], &garbage].concat();
            stream.send_bytes(half.into()).await?;
            return Ok(Sent::Open(stream));
        }
    }
    stream.finish()?;
    Ok(Sent::Ended(stream.recv_frame().await.ok().flatten()))
}

/// The node took the garbage without harm.
#[track_caller]
fn serves_on(cluster: &mut Cluster) {
    cluster.write("f", &bytes(9, 3 << 20));
    cluster.dfs(&["put", "f", "/f"]).ok();
    cluster.dfs(&["get", "/f", "back"]).ok();
    cluster.dfs(&["fsck"]).ok();
    assert_eq!(cluster.stop(0), 0);
    let log = cluster.log(0);
    assert!(!log.contains("panic"), "{log}");
}

/// The nodes that live refuse him; that another one is silent does not make it a thing that passes.
#[test]
fn a_removed_user_is_denied_also_while_a_node_is_down() {
    let mut cluster = Cluster::start(3);
    let token = cluster.token(&["--client", "--user", "bob"]);
    let to = cluster.members[0].address.clone();
    let bob = cluster.path("bob.dfs").display().to_string();
    let login = ["--identity", &bob, "login", &to, "--token", &token];
    cluster.dfs(&login).ok();
    let all: Vec<_> = (cluster.members.iter())
        .map(|member| member.address.clone())
        .collect();
    let all = all.join(",");
    let as_bob = ["--identity", &bob, "--cluster", &all, "--json"];
    let ls = [&as_bob[..], &["--timeout", "60s", "ls", "/"]].concat();
    cluster.dfs(&ls).ok();
    cluster.dfs(&["user", "rm", "bob"]).ok();
    cluster.kill(2);
    // The others may hear of it a moment later.
    until(HEALTHY_WITHIN, "he is refused", || {
        cluster.dfs(&ls).status != 0
    });
    let error = cluster.dfs(&ls).error(5);
    let said = error["message"].as_str().unwrap();
    assert!(said.contains("refused at 2 of 3 addresses"), "{error}");
    for member in &cluster.members {
        assert!(said.contains(&member.address), "{error}");
    }
}

#[test]
fn frames_of_garbage_too_long_and_never_finished() {
    let mut cluster = Cluster::start(1);
    let knocking = Knocking::new();
    let to = cluster.members[0].address.clone();
    let data = cluster.members[0].data.clone();
    let admin = user(&data.join("admin.dfs"));
    // The node's own certificate: even a node is not believed to send well-formed frames.
    let node = NodeFiles::load(&data).unwrap().unwrap().credentials;
    let mut kept = Vec::new();
    for (alpn, who) in [(ALPN_CLIENT, &admin), (ALPN_NODE, &node)] {
        let connection = knocking.dial(&to, alpn, who).unwrap();
        for round in 0..60 {
            // Whatever the node says to it.
            let sent = send_garbage(&connection, round, 1_000_000);
            let limited = async { tokio::time::timeout(DIAL, sent).await };
            if let Ok(Ok(Sent::Open(stream))) = knocking.runtime.block_on(limited) {
                kept.push(stream);
            }
        }
    }
    assert!(!kept.is_empty());
    serves_on(&mut cluster);
}

/// Who joins has no certificate yet: this is what anybody can send who knows the address.
#[test]
fn garbage_from_those_without_a_certificate() {
    let mut cluster = Cluster::start(1);
    let knocking = Knocking::new();
    let to = cluster.members[0].address.clone();
    let token = cluster.token(&["--client", "--user", "bob"]);
    let pin = JoinToken::parse(&token).unwrap().pin();
    let nobody = ClientTls::pinned(pin).unwrap();
    let (mut kept, mut told) = (Vec::new(), 0);
    for round in 0..36 {
        // What a request to join may have, and far too much.
        let frame_bytes = [1_000, 1_000_000][round as usize / 3 % 2];
        // Such a connection has two streams, which half a frame each would hold.
        let connection = knocking.dial_as(&to, ALPN_JOIN, &nobody).unwrap();
        let sent = send_garbage(&connection, round, frame_bytes);
        let limited = async { tokio::time::timeout(DIAL, sent).await };
        match knocking
            .runtime
            .block_on(limited)
            .expect("the node says something")
        {
            Ok(Sent::Open(stream)) => kept.push((connection, stream)),
            Ok(Sent::Ended(Some(frame))) => match codec::decode(&frame).unwrap() {
                JoinAnswer::Failed(error) => {
                    assert_eq!(error.code, Code::Usage, "{error}");
                    told += 1;
                }
                JoinAnswer::Joined(_) => panic!("garbage was let in"),
            },
            // Cut off.
            Ok(Sent::Ended(None)) | Err(_) => {}
        }
        // A node looks at ten such requests in a second, and this is about what it does then.
        std::thread::sleep(Duration::from_millis(150));
    }
    assert!(told >= 12, "{told} of the frames were answered");
    // Others are let in beside all that is held open.
    assert_eq!(kept.len(), 12);
    let login = ["--identity", "bob.dfs", "login", &to, "--token", &token];
    cluster.dfs(&login).ok();
    cluster.dfs(&["--identity", "bob.dfs", "ls", "/"]).ok();
    let place = cluster.join();
    assert_eq!(cluster.members[place].id, 2);
    cluster.until_settled();
    assert_eq!(cluster.stop(place), 0);
    cluster.run(place);
    serves_on(&mut cluster);
}

#[test]
fn what_would_leave_too_few_is_refused_with_what_it_would_take() {
    let mut cluster = Cluster::start(3);
    let local = cluster.write("large", &bytes(1, 300_000));
    cluster
        .dfs(&["put", "-q", local.to_str().unwrap(), "/large"])
        .ok();
    cluster.until_settled();
    let refused = |cluster: &Cluster, line: &[&str], parts: &[&str]| {
        let error = cluster.dfs(&[&["--json"], line].concat()).error(4);
        let said = format!("{} {}", error["message"], error["hint"]);
        for part in parts {
            assert!(said.contains(part), "{line:?}: {said}");
        }
    };
    let drain = ["node", "drain", "3"];
    let copies = ["2 nodes for 3 copies", "join another node first"];
    refused(&cluster, &drain, &copies);
    refused(&cluster, &["node", "weight", "3", "0"], &copies);
    cluster.dfs(&["node", "weight", "9", "0"]).fails(3);
    let missing = |cluster: &Cluster| {
        let ring = &cluster.status()["ring"];
        let count = |name: &str| ring[name].as_u64().unwrap();
        (count("under_replicated"), count("without_node"))
    };
    assert_eq!(missing(&cluster), (0, 0));
    refused(
        &cluster,
        &["node", "remove", "3"],
        &["node drain 3", "--force"],
    );
    cluster.kill(2);
    // Its loss can be borne; that of one more cannot, also while it seems to be there.
    let voters = [
        "would have 1 of 3 voters",
        "bring another of its nodes back",
    ];
    refused(&cluster, &["node", "remove", "2", "--force"], &voters);
    until(Duration::from_secs(60), "the node is offline", || {
        let ran = cluster.dfs(&["--json", "node", "ls"]);
        ran.stdout.contains("\"offline\"")
    });
    // Nobody can make the third copy.
    until(HEALTHY_WITHIN, "the missing copy is counted", || {
        missing(&cluster) == (1, 1)
    });
    assert!(
        cluster.status()["reasons"]
            .to_string()
            .contains("no node to be on")
    );
    refused(&cluster, &["node", "remove", "2", "--force"], &voters);
    refused(&cluster, &drain, &copies);
    cluster.dfs(&["node", "drain", "9"]).fails(3);
    cluster.dfs(&["node", "remove", "9", "--force"]).fails(3);
    cluster.dfs(&["node", "remove", "3", "--force"]).ok();
    cluster.dfs(&["ls", "/"]).ok();
    // Often: what ends with the node must not get in before the reason and its exit status.
    for _ in 0..20 {
        let said = cluster.refused(2, &[], 5);
        assert!(said.contains("was removed from the cluster"), "{said}");
        assert!(!said.contains("has stopped"), "{said}");
    }
}

/// Each of them can be spared, both cannot.
#[test]
fn of_two_nodes_taken_out_at_once_one_stays() {
    let cluster = Cluster::start(3);
    cluster.until_settled();
    let remove = |node| {
        let mut command = cluster.command(&["node", "remove", node, "--force"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let both = [remove("2"), remove("3")].map(|child| child.wait_with_output().unwrap());
    let mut codes = both.each_ref().map(|ran| ran.status.code());
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(4)], "{both:?}");
    cluster.dfs(&["mkdir", "/d"]).ok();
}

#[test]
fn a_node_with_the_address_of_another_is_noticed_and_takes_nothing_over() {
    let mut cluster = Cluster::start(2);
    let taken = cluster.members[1].address.clone();
    let token = cluster.token(&[]);
    let place = cluster.add("third", &free_address(), &[]);
    let to = cluster.members[0].address.clone();
    let advertised = ["--join", &to, "--token", &token, "--advertise", &taken];
    cluster.run_with(place, &advertised);
    until(HEALTHY_WITHIN, "the status says so", || {
        let ran = cluster.dfs(&["--json", "status"]);
        ran.stdout.contains(&format!("have one address ({taken})"))
    });
    // Whoever speaks to that address knows by the certificate whom he reached.
    cluster.write("f", &bytes(3, 200_000));
    for reader in [0, 1] {
        let put = ["put", "--overwrite", "f", "/f"];
        cluster.dfs_at(reader, &put).ok();
        cluster.dfs_at(reader, &["get", "-f", "/f", "back"]).ok();
        assert!(std::fs::read(cluster.path("back")).unwrap() == bytes(3, 200_000));
    }
    let replicas = cluster.status()["shards"][1]["replicas"].clone();
    assert!(!replicas.to_string().contains('3'), "{replicas}");
    // With an address of its own it takes part.
    assert_eq!(cluster.stop(place), 0);
    cluster.run(place);
    cluster.until_health("green", HEALTHY_WITHIN);
    cluster.dfs(&["fsck"]).ok();
}

/// What a node takes beside the connections of users: whoever of them is too much is told so,
/// and nodes and the others are served. Slow in a debug build.
#[test]
#[ignore = "takes minutes in a debug build; scripts/torture.sh runs it"]
fn ten_thousand_idle_connections_do_no_harm() {
    let cluster = Cluster::start(3);
    let admin = user(&cluster.members[0].data.join("admin.dfs"));
    let to: SocketAddr = cluster.members[0].address.parse().unwrap();
    let (mut doors, mut open) = (Vec::new(), Vec::new());
    let mut refused = 0;
    for _ in 0..10 {
        let knocking = Knocking::new();
        let tls = ClientTls::new(&admin).unwrap();
        for _ in 0..16 {
            let dial = || knocking.endpoint.connect(to, ALPN_CLIENT, &tls, DIAL);
            let dials = (0..64).map(|_| dial());
            let dialled = knocking.runtime.block_on(futures::future::join_all(dials));
            for connection in dialled {
                match connection {
                    Ok(connection) => open.push(connection),
                    Err(_) => refused += 1,
                }
            }
        }
        doors.push(knocking);
    }
    let alive = open.iter().filter(|open| !open.is_closed()).count();
    eprintln!("{alive} connections open, {refused} refused");
    assert!(alive >= 9_000, "{alive} open, {refused} refused");
    assert!(refused > 0, "there is no bound");
    // The other nodes still reach it, and it them: everything is written and read, also when a
    // node that has no connection yet comes back.
    let mut cluster = cluster;
    cluster.kill(1);
    cluster.run(1);
    cluster.write("f", &bytes(9, 3 << 20));
    cluster.dfs_at(1, &["put", "--ack", "all", "f", "/f"]).ok();
    cluster.until_health("green", HEALTHY_WITHIN);
    let status = format!("/proc/{}/status", cluster.pid(0));
    let status = std::fs::read_to_string(status).unwrap();
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let rss = rss.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok());
    eprintln!("anonymous memory: {} KiB", rss.unwrap());
    assert!(rss.unwrap() < 2 << 20, "{rss:?} KiB");
    drop((open, doors));
    until(HEALTHY_WITHIN, "there is room again", || {
        cluster.dfs_at(0, &["--timeout", "2s", "ls", "/"]).status == 0
    });
    cluster.dfs(&["fsck"]).ok();
}
