//! Problem documents (RFC 9457): the body of every answer that is not a success.
