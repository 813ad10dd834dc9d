//! Claims about the demo's run.

use super::*;

#[tokio::test]
async fn the_demo_places_thirty_pods_and_explains_the_one_it_refuses() {
    let mut out = Vec::new();
    run(&mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let rows: Vec<&str> =
        text.lines().skip_while(|l| !l.starts_with("POD ")).skip(1).take_while(|l| !l.is_empty()).collect();
    let bound: Vec<&&str> = rows.iter().filter(|r| r.contains("GPU ")).collect();
    assert!(rows.len() >= 30 && bound.len() >= 30, "{text}");
    assert!(rows.iter().any(|r| r.contains(" - ")), "one pod must be refused:\n{text}");
    assert!(text.contains("Why does ") && text.contains("what helps: "), "{text}");
}

#[tokio::test]
async fn the_demo_says_the_same_every_time() {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    run(&mut first).await.unwrap();
    run(&mut second).await.unwrap();
    let plain = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        text.lines().filter(|l| !l.contains("127.0.0.1")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(plain(first), plain(second));
}
