//! `foodflow-edge browse`: which nodes does an OPC UA server have, as they are written in a configuration?
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    collections::HashSet,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use globset::{Glob, GlobMatcher};
use serde::Serialize;

use crate::{
    config, durable,
    source::opcua::{
        client::with_session,
        config::{NodeIdentifier, Server},
        survey::{Found, survey},
    },
};

/// Browse an OPC UA server.
#[derive(Debug, Args)]
pub struct BrowseArgs {
    /// The server, like `opc.tcp://127.0.0.1:4840/`, without security.
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "config",
        conflicts_with = "config"
    )]
    url: Option<String>,
    /// The configuration that names the server.
    #[arg(long, value_name = "FILE", requires = "server")]
    config: Option<PathBuf>,
    /// The server's name in the configuration.
    #[arg(long, value_name = "NAME", requires = "config")]
    server: Option<String>,
    /// The agent's data directory: holds the certificates that a server with security wants.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Only variables whose identifier or dotted path matches, as `[[opcua.tag]]` to paste: `L1.*.Temp*`.
    #[arg(long = "match", value_name = "GLOB")]
    pattern: Option<String>,
    /// Append the `[[opcua.tag]]` of the matching variables to this file instead of printing them.
    #[arg(long, value_name = "FILE", requires = "pattern", conflicts_with = "json")]
    append: Option<PathBuf>,
    /// Stop after this many nodes.
    #[arg(long, default_value_t = 10_000)]
    max: usize,
    /// Answer as JSON lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    path: &'a str,
    node: &'a str,
    namespace_uri: &'a str,
    is_variable: bool,
    #[serde(rename = "type")]
    data_type: &'a str,
    description: &'a str,
}

/// Lists the nodes below the server's Objects folder, its own Server object left out.
pub async fn run(args: BrowseArgs) -> anyhow::Result<()> {
    let (server, names) = server(&args)?;
    let matcher = args
        .pattern
        .as_deref()
        .map(|pattern| Glob::new(pattern).with_context(|| format!("`--match {pattern}`")))
        .transpose()?
        .map(|glob| glob.compile_matcher());
    let pki = pki_dir(&server, args.data_dir.as_deref())?;
    let (mut found, is_complete) = with_session(&server, &pki, |session| async move {
        survey(&session, args.max).await
    })
    .await
    .with_context(|| format!("browsing {}", server.url))?;
    if !is_complete {
        tracing::warn!(
            max = args.max,
            "the server has more nodes; raise --max to see them"
        );
    }
    if let Some(matcher) = &matcher {
        found.retain(|node| node.is_variable && matches(matcher, node));
    }
    if args.json {
        for node in &found {
            println!("{}", serde_json::to_string(&line(node))?);
        }
    } else if matcher.is_some() {
        let text = blocks(&server, &names, &found);
        match &args.append {
            Some(file) => append(file, &server, &text)?,
            None => print!("{text}"),
        }
    } else {
        list(&found);
    }
    Ok(())
}

/// The server that is asked for, and the names of the tags that the configuration has already.
fn server(args: &BrowseArgs) -> anyhow::Result<(Server, HashSet<String>)> {
    let (Some(file), Some(name)) = (&args.config, &args.server) else {
        return Ok((
            Server::plain(args.url.as_deref().unwrap_or_default()),
            HashSet::new(),
        ));
    };
    let config = config::load(file)?;
    let known: Vec<String> = config.opcua.iter().map(|server| server.name.clone()).collect();
    let names = config.dictionary.tags.into_iter().map(|tag| tag.name).collect();
    let server = config.opcua.into_iter().find(|server| server.name == *name);
    let Some(server) = server else {
        bail!(
            "no OPC UA server is named `{name}` in {}; there are: {}",
            file.display(),
            known.join(", ")
        );
    };
    Ok((server, names))
}

/// Where the agent's certificates are. A server without security needs none.
///
/// # Errors
/// When the server has security and no data directory is given.
pub(super) fn pki_dir(server: &Server, data_dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    match data_dir {
        Some(data_dir) => Ok(data_dir.join("opcua-pki")),
        None if server.security.is_on() => bail!(
            "`{}` has security: give `--data-dir DIR`, where the agent's certificate is",
            server.name
        ),
        None => Ok(std::env::temp_dir().join("foodflow-edge-pki")),
    }
}

fn matches(matcher: &GlobMatcher, node: &Found) -> bool {
    let identifier = node.node.split_once('=').map_or("", |(_, identifier)| identifier);
    matcher.is_match(identifier) || matcher.is_match(dotted(node))
}

fn dotted(node: &Found) -> String {
    node.path.trim_start_matches('/').replace('/', ".")
}

fn line(node: &Found) -> Line<'_> {
    Line {
        path: &node.path,
        node: &node.node,
        namespace_uri: &node.namespace_uri,
        is_variable: node.is_variable,
        data_type: &node.data_type,
        description: &node.description,
    }
}

fn list(found: &[Found]) {
    for node in found {
        if node.is_variable {
            println!(
                "{:<40} node = \"{}\"  namespace_uri = \"{}\"",
                node.path, node.node, node.namespace_uri
            );
        } else {
            println!("{}/", node.path);
        }
    }
}

/// The variables as they are written in a configuration; those that it watches already are left out.
fn blocks(server: &Server, names: &HashSet<String>, found: &[Found]) -> String {
    let mut names = names.clone();
    let mut text = String::new();
    for node in found {
        let Some(identifier) = NodeIdentifier::parse(&node.node) else {
            // GUIDs and opaque identifiers cannot be configured: better said than left out.
            text.extend([format!(
                "# {}: `{}` is an identifier that cannot be configured\n\n",
                node.path, node.node
            )]);
            continue;
        };
        let is_watched = server.tags.iter().any(|tag| {
            let uri = tag.namespace_uri.as_ref().unwrap_or(&server.namespace_uri);
            tag.node == identifier && *uri == node.namespace_uri
        });
        if !is_watched {
            block(&mut text, server, &identifier, node, &mut names);
        }
    }
    text
}

fn block(
    text: &mut String,
    server: &Server,
    identifier: &NodeIdentifier,
    node: &Found,
    names: &mut HashSet<String>,
) {
    let mut name = match identifier {
        NodeIdentifier::Text(identifier) => identifier.clone(),
        NodeIdentifier::Number(_) => dotted(node),
    };
    for candidate in [dotted(node), format!("{}.{}", server.name, dotted(node))] {
        if names.contains(&name) {
            name = candidate;
        }
    }
    let is_usable = node.is_number && !names.contains(&name);
    names.insert(name.clone());
    let mut lines = format!("[[opcua.tag]]\nname = {}\n", quoted(&name));
    let mut key = |key: &str, value: &str| lines.extend([format!("{key} = {}\n", quoted(value))]);
    key("node", &node.node);
    if node.namespace_uri != server.namespace_uri {
        key("namespace_uri", &node.namespace_uri);
    }
    if !node.description.is_empty() {
        key("description", &node.description);
    }
    if is_usable {
        text.extend([lines, format!("# type: {}\n\n", node.data_type)]);
    } else {
        let why = if node.is_number {
            "its name is taken"
        } else {
            "it holds no number"
        };
        text.extend([format!("# {} ({}): {why}\n", node.path, node.data_type)]);
        text.extend(lines.lines().map(|line| format!("# {line}\n")));
        text.push('\n');
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Appends to a file whose last `[[opcua]]` is the server: there and nowhere else the blocks are its tags.
fn append(file: &Path, server: &Server, text: &str) -> anyhow::Result<()> {
    let held = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let table: toml::Table = held
        .parse()
        .with_context(|| format!("reading {}", file.display()))?;
    let last = table
        .get("opcua")
        .and_then(|servers| servers.as_array()?.last()?.get("name")?.as_str());
    if last != Some(server.name.as_str()) {
        bail!(
            "the last [[opcua]] of {} is not `{}`: tags appended there would belong to another server; move its section to \
             the end, or paste the output of this command without --append",
            file.display(),
            server.name
        );
    }
    let separator = if held.ends_with('\n') { "\n" } else { "\n\n" };
    let whole = format!("{held}{separator}{text}");
    // A configuration that only its owner may read stays so.
    let mode = std::fs::metadata(file).map(|held| held.permissions().mode() & 0o777);
    mode.and_then(|mode| durable::write_whole(file, whole.as_bytes(), mode))
        .with_context(|| format!("writing {}", file.display()))?;
    let count = text.lines().filter(|line| *line == "[[opcua.tag]]").count();
    println!(
        "{count} tags appended to {}; check it with `foodflow-edge check`",
        file.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, node: &str, data_type: &str) -> Found {
        Found {
            path: path.to_owned(),
            node: node.to_owned(),
            namespace_uri: "urn:a".to_owned(),
            is_variable: true,
            is_number: data_type != "String",
            data_type: data_type.to_owned(),
            description: "Core \"hot\"".to_owned(),
        }
    }

    fn oven() -> Server {
        let mut server = Server::plain("opc.tcp://h:1/");
        server.name = "oven".to_owned();
        server.namespace_uri = "urn:a".to_owned();
        server
    }

    #[test]
    fn a_pattern_matches_the_identifier_or_the_dotted_path() {
        let matcher = Glob::new("L1.*.Temp*").unwrap().compile_matcher();
        assert!(matches(&matcher, &found("/x", "s=L1.Oven.Temp1", "Double")));
        assert!(matches(&matcher, &found("/L1/Oven/Temp1", "i=7", "Double")));
        assert!(!matches(&matcher, &found("/L2/Oven/Temp1", "i=7", "Double")));
    }

    #[test]
    fn what_is_printed_can_be_pasted() {
        let nodes = [
            found("/TT-310", "s=L3.TT-310", "Double"),
            found("/Name", "s=L3.NAME", "String"),
            found("/A/TT", "i=7", "Float"),
        ];
        let names = HashSet::from(["A.TT".to_owned()]);
        let text = blocks(&oven(), &names, &nodes);
        let head = "[edge]\nname = \"a\"\ntenant = \"a\"\n[hub]\nmqtt = \"h:1\"\n[[opcua]]\nname = \"oven\"\n\
                    url = \"opc.tcp://h:1/\"\nnamespace_uri = \"urn:a\"\n";
        let config = config::parse(&format!("{head}{text}")).unwrap();
        let tags: Vec<&str> = config
            .dictionary
            .tags
            .iter()
            .map(|tag| tag.name.as_str())
            .collect();
        assert_eq!(tags, ["L3.TT-310", "oven.A.TT"]);
        assert_eq!(config.dictionary.tags[0].description, "Core \"hot\"");
        assert!(text.contains("it holds no number"));
    }

    #[test]
    fn tags_are_appended_only_where_they_belong_to_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edge.toml");
        std::fs::write(&file, "[[opcua]]\nname = \"oven\"\n[[opcua]]\nname = \"mill\"\n").unwrap();
        let error = append(&file, &oven(), "x").unwrap_err().to_string();
        assert!(error.contains("another server"), "{error}");
        std::fs::write(&file, "[[opcua]]\nname = \"oven\"").unwrap();
        append(&file, &oven(), "[[opcua.tag]]\nname = \"a\"\n").unwrap();
        let table: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        assert_eq!(table["opcua"][0]["tag"][0]["name"].as_str(), Some("a"));
    }

    #[test]
    fn a_configuration_that_only_its_owner_may_read_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edge.toml");
        std::fs::write(&file, "[[opcua]]\nname = \"oven\"\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        append(&file, &oven(), "[[opcua.tag]]\nname = \"a\"\n").unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
