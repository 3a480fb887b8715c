//! The patterns that texts of the API must match, each with the rule and the remedy in words. The types, the schema and
//! the checks of documents use it; it uses none of them.

/// Name of a Secret, ConfigMap, claim or service account.
pub(crate) const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// Key in a ConfigMap.
pub(crate) const CONFIG_KEY: &str = r"^[-._a-zA-Z0-9]+$";
/// AWS region.
pub(crate) const REGION: &str = r"^[a-z0-9]+(-[a-z0-9]+)*$";
/// URL of a service in place of AWS, without credentials, query or fragment.
pub(crate) const ENDPOINT: &str = r"^https?://[-a-zA-Z0-9.:_\[\]]+(/[-a-zA-Z0-9._~/]*)?$";
/// SQS FIFO queue.
pub(crate) const QUEUE_NAME: &str = r"^[-_a-zA-Z0-9]{1,75}\.fifo$";
/// Kinesis stream.
pub(crate) const STREAM_NAME: &str = r"^[-_.a-zA-Z0-9]{1,128}$";
/// Folder below /data, or prefix in a bucket.
pub(crate) const LOCATION: &str = r"^(file:///data(/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*)+/?|s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*)*/?)$";
/// An HTML file below /data or in a bucket.
pub(crate) const REPORT_LOCATION: &str = r"^(file:///data|s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9])(/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*)*/[-a-zA-Z0-9_=+,@][-a-zA-Z0-9_=+,@. ]*\.html$";

/// Image without a tag.
pub(crate) const IMAGE_REPOSITORY: &str =
    r"^[a-zA-Z0-9][-a-zA-Z0-9.]*(:[0-9]{1,5})?(/[-a-zA-Z0-9._]+)*$";
/// Tag or digest.
pub(crate) const IMAGE_TAG: &str = r"^([a-zA-Z0-9_][-a-zA-Z0-9_.]*|sha256:[a-f0-9]{64})$";
/// Amount of a resource.
pub(crate) const AMOUNT: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";
/// Name of a namespace.
pub(crate) const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// Every pattern, with the rule and the remedy in words.
pub(crate) const PATTERNS: &[(&str, &str, &str)] = &[
    (
        OBJECT_NAME,
        "must be the name of an object",
        "use a-z, 0-9, - and ., beginning and ending with a letter or digit",
    ),
    (
        CONFIG_KEY,
        "must be a key of a ConfigMap",
        "use letters, digits, -, _ and .",
    ),
    (REGION, "must be an AWS region", "write it as us-east-1"),
    (
        ENDPOINT,
        "must be an http or https address without credentials, query or fragment",
        "write it as http://localstack:4566; credentials go into credentialsSecretRef",
    ),
    (
        QUEUE_NAME,
        "must be the name of a FIFO queue",
        "use up to 75 letters, digits, - and _, and .fifo at the end",
    ),
    (
        STREAM_NAME,
        "must be the name of a stream",
        "use letters, digits, -, _ and .",
    ),
    (
        LOCATION,
        "must be a folder below /data or a prefix in a bucket",
        "write file:///data/FOLDER or s3://bucket/prefix, with letters, digits, spaces and -_=+,@. in names; buckets have 3 to 63 characters",
    ),
    (
        REPORT_LOCATION,
        "must be an HTML file below /data or in a bucket",
        "write file:///data/reports/results.html or s3://bucket/results.html, with letters, digits, spaces and -_=+,@. in names",
    ),
    (
        IMAGE_REPOSITORY,
        "must be an image's repository without a tag",
        "write it as ghcr.io/streampress/streampress, and the tag in image.tag",
    ),
    (
        IMAGE_TAG,
        "must be a tag or a digest",
        "write it as 0.1.0 or sha256:…",
    ),
    (
        AMOUNT,
        "must be an amount of a resource",
        "write it as 500m, 2, 256Mi or 1Gi",
    ),
    (
        DNS_LABEL,
        "must be a name",
        "use a-z, 0-9 and -, beginning and ending with a letter or digit",
    ),
];

/// A pattern's rule and remedy in words.
pub(crate) fn pattern_in_words(pattern: &str) -> (&'static str, &'static str) {
    let found = PATTERNS.iter().find(|(known, ..)| *known == pattern);
    found.map_or(
        ("must have another form", "see kubectl explain"),
        |(_, rule, help)| (rule, help),
    )
}
