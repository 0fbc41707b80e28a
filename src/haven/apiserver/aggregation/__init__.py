"""APIs of other servers, served under this one's address: APIServices."""
